"""More connections than the server may open descriptors for."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from chaos.connection import connect
from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.load import closed_loop
from chaos.server import wait_for_ping

LIMIT = 64  # descriptors a process
IDLE_CONNECTIONS = 300
HOLD_SECONDS = 3.0


async def exhaust_descriptors(lab: Lab) -> Result:
    """No process dies of it, and once the crowd has left, the server answers as before."""
    async with lab.server(limits=f"ulimit -n {LIMIT}") as server:
        before = {process.pid for process in server.workers()}
        crowd: list[socket.socket] = []
        for _ in range(IDLE_CONNECTIONS):
            with suppress(OSError):
                crowd.append(await connect(server.port))
        await asyncio.sleep(HOLD_SECONDS)
        for connection in crowd:
            connection.close()
        back_seconds = await wait_for_ping(server, seconds=20)
        after = {process.pid for process in server.workers()}
        async with closed_loop(lab.target(server), connections=4) as ledger:
            await asyncio.sleep(SETTLE_SECONDS)
    numbers = {
        "crowd": len(crowd),
        "deaths": len(before - after),
        "ping_back_seconds": back_seconds,
        "harmed": len(ledger.harmed()),
    }
    passed = before <= after and back_seconds <= 2.0 and not ledger.harmed()
    return Result(name="descriptors", passed=passed, numbers=numbers)
