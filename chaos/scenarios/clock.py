"""The wall clock jumps an hour forth and a day back, as after a host's suspend or a bad NTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.load import closed_loop, pings

JUMPS = ("+3600", "-86400")  # seconds from now


async def jump_clock(lab: Lab) -> Result:
    """Nothing fails and no process is replaced: deadlines are measured by a clock that cannot jump."""
    library = next(iter(sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))), None)
    if library is None:
        return Result(name="clock", passed=True, skipped="no libfaketime (apt-get install faketime)")
    clock = lab.scratch / "clock"
    clock.write_text("+0\n")
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # which a real jump leaves alone too
    }
    async with (
        lab.server(**variables) as server,
        closed_loop(lab.target(server), connections=lab.connections) as ledger,
        pings(server.port) as ping,
    ):
        before = {process.pid for process in server.workers()}
        for jump in JUMPS:
            await asyncio.sleep(SETTLE_SECONDS)
            clock.write_text(f"{jump}\n")
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
