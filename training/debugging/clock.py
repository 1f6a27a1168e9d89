"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StepClock:
    """Durations of a step's phases in seconds, the watching itself counted apart.

    `wait` lets the device finish what it was given; without it a GPU's phases would end before they are done.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self._wait = wait
        self._started: float | None = None
        self._phases: dict[str, float] = {}
        self._with_phases = True
        self._watching = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a step has started and not ended."""
        return self._started is not None

    def start(self, *, with_phases: bool) -> None:
        """A step begins; without phases only its total is measured, and the device is not waited for."""
        self._started, self._phases, self._watching = time.perf_counter(), {}, 0.0
        self._with_phases = with_phases

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Around one part of the step."""
        if not self._with_phases:
            yield
            return
        self._wait()
        started, watched = time.perf_counter(), self._watching
        yield
        self._wait()
        duration = time.perf_counter() - started - (self._watching - watched)
        self._phases[name] = self._phases.get(name, 0.0) + duration

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around what the training would not do if nobody watched."""
        started = time.perf_counter()
        yield
        self._watching += time.perf_counter() - started

    def end(self) -> dict[str, float]:
        """Phase -> seconds, with other and total; the watching goes on: `watched` says how long."""
        assert self._started is not None
        total = time.perf_counter() - self._started - self._watching
        self._started = None
        phases = self._phases
        if self._with_phases:
            phases["other"] = max(0.0, total - sum(phases.values()))
        return phases | {"total": total}

    @property
    def watched(self) -> float:
        """Seconds of watching since the step began."""
        return self._watching
