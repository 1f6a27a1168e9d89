"""Three times more requests than the server can answer, due whether it answers or not."""

from __future__ import annotations

import asyncio
import time

from chaos.lab import Lab, Result, Stopwatch, measure_peak
from chaos.ledger import Fate, Ledger
from chaos.load import Pace, open_loop, pings

FACTOR = 3.0
P99_FACTOR = 2.0
CONNECTIONS = 64  # at the peak: as many as are served without one being turned away


async def overload(lab: Lab) -> Result:
    """Goodput stays at the peak, p99 of what is answered at most doubles, and /ping always answers.

    The driver sends three times as much from the same machine, so goodput counts by the cores it left.
    """
    seconds = lab.pick(short=15, long=60)
    ledger = Ledger()
    async with lab.server() as server:
        peak = await measure_peak(lab, server, connections=CONNECTIONS)
        await asyncio.sleep(1.0)
        async with pings(server.port) as ping:
            watch, start = Stopwatch(), time.monotonic()
            await open_loop(lab.target(server), ledger, Pace(FACTOR * peak.goodput), seconds=seconds)
            cores = watch.cores_left()
    goodput = ledger.goodput(start, start + seconds)
    share = (goodput / cores) / (peak.goodput / peak.cores) if peak.goodput else 0.0
    p99 = ledger.seconds(0.99)
    harmed = ledger.harmed()
    silent = [entry for entry in ping.entries if entry.fate is not Fate.ANSWERED]
    numbers = {
        "peak_per_second": peak.goodput,
        "goodput": goodput / peak.goodput if peak.goodput else 0.0,
        "goodput_by_cores_left": share,
        "peak_p99_seconds": peak.p99,
        "p99_seconds": p99,
        "pings_missed": len(silent),
        "slowest_ping_seconds": max(entry.seconds for entry in ping.entries),
        "harmed": len(harmed),
        "fates": ledger.counts(),
    }
    kept_up = share >= lab.recovered and p99 <= P99_FACTOR * peak.p99
    return Result(name="overload", passed=kept_up and not silent and not harmed, numbers=numbers)
