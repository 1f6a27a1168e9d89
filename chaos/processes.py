"""A process and those below it, as the kernel's /proc tells: who lives, and in how much memory."""

from __future__ import annotations

import os
from pathlib import Path


def read_tree(pid: int) -> set[int]:
    """The process and all its descendants."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.add(one)
        waiting += children
    return found


def read_resident_mib(pids: set[int]) -> float:
    """Resident memory, summed; pages that they share count each time."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
