"""Mutated pictures and documents in every content type (chaos/fuzz_codec.py), over kept-alive connections."""

from __future__ import annotations

import asyncio

from chaos.fuzz_codec import MAX_GROWTH, Ledger, fuzz_over_http
from chaos.lab import Lab, Result

CONNECTIONS = 6
MAX_GROWTH_SHORT = 0.25  # a few hundred bodies warm nothing up


async def fuzz(lab: Lab) -> Result:
    """No 5xx, no dead process, and memory as it was once everything had been used once."""
    bodies = int(lab.pick(short=1_000, long=100_000))
    async with lab.server() as server:
        ledger = Ledger(bodies, server.process.pid, lab.scratch / "fuzz")
        await asyncio.to_thread(
            fuzz_over_http,
            f"http://127.0.0.1:{server.port}",
            list(lab.seeds),
            ledger,
            seed=0,
            connections=CONNECTIONS,
        )
        report = ledger.report()
    growth = float(str(report.pop("resident_growth")))
    report["resident_growth"] = growth
    passed = (
        not report["bad_answers"]
        and not report["worker_deaths"]
        and growth <= lab.pick(short=MAX_GROWTH_SHORT, long=MAX_GROWTH)
    )
    return Result(name="fuzz", passed=passed, numbers=report)
