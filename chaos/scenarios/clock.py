"""The wall clock jumps an hour forth and a day back, as after a host's suspend or a bad NTP server.

By a preloaded library of our own: libfaketime 0.9.10 cannot leave the monotonic clock alone (Python's
time.sleep then fails with EINVAL).
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
from pathlib import Path

from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.load import closed_loop, pings

JUMPS = (3600, -86400)  # seconds ahead of the real clock
SOURCE = Path(__file__).with_name("wall_clock.c")


async def jump_clock(lab: Lab) -> Result:
    """Nothing fails and no process is replaced: deadlines are measured by a clock that cannot jump."""
    compiler = shutil.which("cc")
    if compiler is None:
        return Result(name="clock", passed=True, skipped="no C compiler (cc) to build the jumping clock with")
    library, offset = lab.scratch / "wall_clock.so", lab.scratch / "clock"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
    offset.write_bytes(struct.pack("=q", 0))
    variables = {"LD_PRELOAD": str(library), "KENNEL_CHAOS_CLOCK": str(offset)}
    async with (
        lab.server(**variables) as server,
        closed_loop(lab.target(server), connections=lab.connections) as ledger,
        pings(server.port) as ping,
    ):
        before = {process.pid for process in server.workers()}
        for jump in JUMPS:
            await asyncio.sleep(SETTLE_SECONDS)
            _set_offset(offset, jump)
            await asyncio.sleep(lab.pick(short=3, long=10))
        after = {process.pid for process in server.workers()}
    answered = ledger.counts().get("answered", 0)
    numbers = {
        "answered": answered,
        "harmed": len(ledger.harmed()),
        "pings_missed": len(ping.harmed()),
        "deaths": len(before - after),
    }
    passed = bool(answered) and not ledger.harmed() and not ping.harmed() and before == after
    return Result(name="clock", passed=passed, numbers=numbers)


def _set_offset(path: Path, seconds: int) -> None:
    """In place: the processes have the file mapped."""
    with path.open("r+b", buffering=0) as file:
        file.write(struct.pack("=q", seconds))
