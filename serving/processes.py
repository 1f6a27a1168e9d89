"""Starting and ending the processes that predict. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from serving.settings import count_gpus

EXPLAIN = "explain"  # the second argument of serving.inference; the first is its index


@dataclass(frozen=True, slots=True)
class Child:
    """A started `python -m serving.inference` and this side's end of its socket."""

    pid: int
    socket_fd: int
    index: int  # among its siblings: the same one after it is replaced


def start_children(indices: Iterable[int]) -> list[Child]:
    """One process per index."""
    return [start_child(index) for index in indices]


def start_child(index: int) -> Child:
    """A process that loads the model and then predicts."""
    return _start(index)


def start_explainer(index: int) -> Child:
    """A process that loads the model and then explains."""
    return _start(index, EXPLAIN)


def _start(index: int, *arguments: str) -> Child:
    """It answers over its standard input, a socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # posix_spawn: a fork would copy the HTTP process's event loop and threads.
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "serving.inference", str(index), *arguments],
        os.environ | _environment(index),
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
    )
    theirs.close()
    return Child(pid, ours.detach(), index)


def kill_children(children: list[Child]) -> None:
    """End what their HTTP process left behind."""
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        with suppress(OSError):
            os.close(child.socket_fd)


def _environment(index: int) -> dict[str, str]:
    """numpy's threads have nothing to do here; of several GPUs each process sees one."""
    variables = {"OPENBLAS_NUM_THREADS": "1"}
    gpus = count_gpus()
    if gpus > 1:
        variables |= {"CUDA_VISIBLE_DEVICES": str(index % gpus)}
    return variables
