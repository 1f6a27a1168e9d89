"""A full disk where temporary files go."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.load import closed_loop
from chaos.server import is_root, kill_one, wait_for_ping


async def fill_disk(lab: Lab) -> Result:
    """The server answers as before, and a killed process is replaced."""
    folder = lab.scratch / "full"
    folder.mkdir()
    try:
        with _small_disk(folder):
            return await _serve_on(lab, folder)
    except (subprocess.CalledProcessError, PermissionError) as error:
        return Result(name="disk", passed=True, skipped=f"cannot mount a small disk here ({error})")


async def _serve_on(lab: Lab, folder: Path) -> Result:
    async with lab.server(TMPDIR=str(folder)) as server:
        _fill(folder / "ballast")
        async with closed_loop(lab.target(server), connections=lab.connections) as ledger:
            await asyncio.sleep(lab.pick(short=3, long=10))
        kill_one(server.workers(), signal.SIGKILL)
        await asyncio.sleep(2.0)
        back_seconds = await wait_for_ping(server, seconds=20)
        async with closed_loop(lab.target(server), connections=lab.connections) as afterwards:
            await asyncio.sleep(SETTLE_SECONDS)
        alive = server.process.poll() is None
    numbers = {
        "harmed": len(ledger.harmed()),
        "ping_back_seconds": back_seconds,
        "harmed_afterwards": len(afterwards.harmed()),
        "fates": ledger.counts(),
    }
    passed = alive and not ledger.harmed() and not afterwards.harmed() and back_seconds <= 2.0
    return Result(name="disk", passed=passed, numbers=numbers)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """4 MB in memory. Raises PermissionError or CalledProcessError where it cannot be mounted."""
    if not is_root():
        raise PermissionError("not root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "kennel-chaos", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:  # ENOSPC: full
            return
