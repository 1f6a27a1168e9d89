"""A control group with a limit on memory, of version 1 or 2, as a container has one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """Made for root only: raises PermissionError for others, FileNotFoundError without control groups."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        is_second_version = (ROOT / "cgroup.controllers").exists()
        self._folder = (ROOT if is_second_version else ROOT / "memory") / name
        self._folder.mkdir()
        limit = "memory.max" if is_second_version else "memory.limit_in_bytes"
        (self._folder / limit).write_text(str(limit_bytes))

    def enter(self) -> None:
        """The calling process, and with it all that it starts."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Once all have left it."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
