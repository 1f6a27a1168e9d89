"""SIGTERM at full load, again and again: what was accepted is answered, and the server exits 0 in time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections import Counter

from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.ledger import lost_at_shutdown
from chaos.load import closed_loop, wait_until_not_listening
from chaos.server import GRACE_SECONDS

EXIT_SECONDS = 25.0


async def terminate(lab: Lab) -> Result:
    """No accepted request lost, exit 0 within 25 s, every time."""
    lost = 0
    seconds: list[float] = []
    codes: Counter[int | str] = Counter()
    fates: Counter[str] = Counter()
    for _ in range(int(lab.pick(short=3, long=20))):
        one = await _terminate_once(lab)
        lost += one[0]
        seconds.append(one[1])
        codes[one[2]] += 1
        fates.update(one[3])
    numbers = {
        "repetitions": len(seconds),
        "lost": lost,
        "slowest_exit_seconds": max(seconds),
        "exit_codes": dict(codes),
        "fates": dict(fates),
    }
    passed = lost == 0 and set(codes) == {0} and max(seconds) <= EXIT_SECONDS
    return Result(name="terminate", passed=passed, numbers=numbers)


async def _terminate_once(lab: Lab) -> tuple[int, float, int | str, dict[str, int]]:
    """Requests lost, seconds until it exited, exit code, fates."""
    async with lab.server() as server:
        async with closed_loop(lab.target(server), connections=2 * lab.connections) as ledger:
            await asyncio.sleep(SETTLE_SECONDS)
            signalled = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            closing = asyncio.create_task(wait_until_not_listening(server.port))
            try:
                code: int | str = await asyncio.to_thread(server.process.wait, GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                code = "still running"
                server.process.kill()
            exited = time.monotonic()
            stopped_listening = await closing
    # Connections go on asking after the end; those are refused and prove nothing.
    asked = ledger.between(0.0, exited + 0.5)
    lost = lost_at_shutdown(ledger.entries, signalled=signalled, stopped_listening=stopped_listening)
    return len(lost), exited - signalled, code, asked.counts()
