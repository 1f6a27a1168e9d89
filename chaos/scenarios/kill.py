"""kill -9 of one process by chance, every second, under load."""

from __future__ import annotations

import asyncio
import signal
import time

from chaos.lab import SETTLE_SECONDS, Lab, Result, recovery
from chaos.ledger import unexplained
from chaos.load import closed_loop
from chaos.server import kill_one

RECOVERY_SECONDS = 2.0


async def kill_workers(lab: Lab) -> Result:
    """Every failed request was in flight at a kill; 2 s after the last one goodput is back."""
    kills: list[float] = []
    window = lab.pick(short=3, long=10)
    async with lab.server() as server, closed_loop(lab.target(server), connections=lab.connections) as ledger:
        await asyncio.sleep(SETTLE_SECONDS)
        start = time.monotonic()
        await asyncio.sleep(window)
        for _ in range(int(lab.pick(short=6, long=60))):
            if kill_one(server.workers(), signal.SIGKILL):
                kills.append(time.monotonic())
            await asyncio.sleep(1.0)
        after = kills[-1] + RECOVERY_SECONDS
        await asyncio.sleep(max(0.0, after + window - time.monotonic()))
        alive = server.process.poll() is None
    share = recovery(ledger, before=(start, start + window), after=(after, after + window))
    strange = unexplained(ledger.entries, kills, within=RECOVERY_SECONDS)
    harmed = len(ledger.harmed())
    numbers = {
        "kills": len(kills),
        "harmed": harmed,
        "unexplained": len(strange),
        "goodput_after": share,
        "fates": ledger.counts(),
    }
    # A process has at most all connections in hand when it dies.
    passed = alive and not strange and share >= lab.recovered and harmed <= len(kills) * lab.connections
    return Result(name="kill", passed=passed, numbers=numbers)
