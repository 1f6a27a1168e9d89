"""A server's processes: started, watched, counted and, whatever it left behind, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from local.platform import REPOSITORY

MARK = "KENNEL_BENCH_RUN"  # in the environment of all that a server starts, daemons too
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """A started server."""

    root: subprocess.Popen[bytes]
    mark: str
    log: Path
    started: float  # time.monotonic()

    def members(self) -> list[psutil.Process]:
        """The process, all below it, and daemons that left the tree but kept the environment."""
        found = {process.pid: process for process in _tree(self.root.pid)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found[process.pid] = process
        return list(found.values())

    def memory_mb(self) -> float:
        """Proportional set size of all, in 10^6 bytes: shared pages are counted once."""
        total = 0
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 1e6

    def cpu_seconds(self) -> float:
        """User and system time of all that live."""
        total = 0.0
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def last_words(self) -> str:
        """The end of its log, on one line."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-400:]


@contextmanager
def start_processes(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path = REPOSITORY
) -> Iterator[Processes]:
    """Run while the context lasts; its output goes to `log`."""
    mark = uuid.uuid4().hex
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        started = time.monotonic()
        root = subprocess.Popen(
            command,
            env=dict(environment) | {MARK: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    processes = Processes(root=root, mark=mark, log=log, started=started)
    try:
        yield processes
    finally:
        _end(processes)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _end(processes: Processes) -> None:
    """SIGTERM to the first, SIGKILL to whatever is left.

    Workers renamed by setproctitle lose their environment, so the tree is noted before it falls apart.
    """
    before = processes.members()
    with contextlib.suppress(ProcessLookupError):
        os.kill(processes.root.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        processes.root.wait(STOP_SECONDS)
    left = {process.pid: process for process in (*before, *processes.members())}
    for process in left.values():
        with contextlib.suppress(psutil.Error):  # psutil compares start times: a reused pid is not killed
            process.kill()
    psutil.wait_procs(list(left.values()), timeout=STOP_SECONDS)
    processes.root.wait()
