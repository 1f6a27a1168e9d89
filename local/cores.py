"""Programs side by side on this machine: which cores each gets. Threads that compete for cores only spin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from artifact.cores import available_cores


def share_cores(slot: int, slots: int) -> tuple[int, ...]:
    """The cores of one of several programs; empty where it may use them all."""
    if slots == 1 or not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))[: available_cores()]
    share = max(1, len(cores) // slots)
    return tuple(cores[(slot * share + place) % len(cores)] for place in range(share))


@contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these; on all of its own where there are none."""
    if not cores:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
