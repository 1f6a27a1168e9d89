"""A real small disk, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk_of(kibibytes: int, folder: Path) -> Iterator[None]:
    """A file system of its own in memory at `folder`; skips where it may not be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    size = f"size={kibibytes}k"
    command = ["mount", "-t", "tmpfs", "-o", size, "kennel-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:  # a container's root may not, unless it was started with SYS_ADMIN
        pytest.skip(f"no small disk may be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """To the last byte of its disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
