"""Several processes on one host, for its GPUs: started together, stopped together, failing together."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

LAST_SECONDS = 90.0  # what is left after one failed gets so long to notice and to say why


def run_together(commands: Sequence[Sequence[str]]) -> int:
    """Run all to their end and pass SIGTERM on; 1 if any failed."""
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    processes += [subprocess.Popen(command) for command in commands]
    codes: list[int | None] = [None]
    while None in codes and not any(codes):
        time.sleep(0.2)
        codes = [process.poll() for process in processes]
    deadline = time.monotonic() + LAST_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return int(any(process.returncode for process in processes))
