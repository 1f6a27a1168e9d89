"""SIGSTOP of a process that predicts, for 5 s: a wedged engine."""

from __future__ import annotations

import asyncio
import signal
import time

from chaos.lab import SETTLE_SECONDS, Lab, Result, recovery
from chaos.ledger import Fate
from chaos.load import closed_loop, pings
from chaos.server import kill_one

PAUSE_SECONDS = 5.0


async def pause_worker(lab: Lab) -> Result:
    """Nothing hangs, /ping goes on answering, and 2 s after SIGCONT goodput is back."""
    window = lab.pick(short=3, long=10)
    async with (
        lab.server() as server,
        closed_loop(lab.target(server), connections=lab.connections) as ledger,
        pings(server.port) as ping,
    ):
        await asyncio.sleep(SETTLE_SECONDS)
        start = time.monotonic()
        await asyncio.sleep(window)
        stopped = kill_one(server.predicting(), signal.SIGSTOP)
        await asyncio.sleep(PAUSE_SECONDS)
        if stopped is not None and stopped.is_running():  # a watchdog may have replaced it
            stopped.send_signal(signal.SIGCONT)
        after = time.monotonic() + 2.0
        await asyncio.sleep(2.0 + window)
    share = recovery(ledger, before=(start, start + window), after=(after, after + window))
    silent = [entry for entry in ping.entries if entry.fate is Fate.TIMED_OUT]
    numbers = {
        "goodput_after": share,
        "slowest_seconds": max(entry.seconds for entry in ledger.entries),
        "pings_missed": len(silent),
        "harmed": len(ledger.harmed()),
        "fates": ledger.counts(),
    }
    # A watchdog that replaces the process fails what it had in hand: with one at a time, that is one.
    passed = not silent and share >= lab.recovered and len(ledger.harmed()) <= 1
    return Result(name="pause", passed=passed, numbers=numbers)
