"""200 connections that send a byte a second, then bodies far over the limit: others must not notice."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress

from chaos.connection import Connection, build_request, connect
from chaos.lab import SETTLE_SECONDS, Lab, Result
from chaos.ledger import Entry
from chaos.load import closed_loop, pings
from chaos.server import Server

DRIPPING = 200
OVERSIZED_BYTES = 60_000_000
KEPT = {"dripping": 0.95, "flooding": 0.85}  # of all the goodput; reading a flood to refuse it does cost


async def drip_and_flood(lab: Lab) -> Result:
    """A normal client keeps its throughput and /ping answers."""
    seconds = lab.pick(short=4, long=20)
    async with (
        lab.server() as server,
        closed_loop(lab.target(server), connections=lab.connections) as ledger,
        pings(server.port) as ping,
    ):
        await asyncio.sleep(SETTLE_SECONDS)
        spans = {"alone": await _span(seconds)}
        dripping = [asyncio.create_task(_drip(server, lab.bodies[0])) for _ in range(DRIPPING)]
        await asyncio.sleep(1.0)
        spans["dripping"] = await _span(seconds)
        for task in dripping:
            task.cancel()
        connected = sum(bool(one) for one in await asyncio.gather(*dripping, return_exceptions=True))
        flood = asyncio.create_task(_flood(server))
        spans["flooding"] = await _span(seconds)
        flood.cancel()
        with suppress(asyncio.CancelledError):
            await flood
    goodput = {name: ledger.goodput(*span) for name, span in spans.items()}
    shares = {name: goodput[name] / goodput["alone"] if goodput["alone"] else 0.0 for name in KEPT}
    missed = len(ping.harmed())
    numbers = {"goodput": shares, "connections": connected, "pings_missed": missed, "fates": ledger.counts()}
    passed = (
        all(shares[name] >= KEPT[name] * lab.recovered for name in KEPT)
        and not missed
        and not ledger.harmed()
    )
    return Result(name="hostile", passed=passed, numbers=numbers)


async def _span(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    await asyncio.sleep(seconds)
    return start, start + seconds


async def _drip(server: Server, body: bytes) -> bool:
    """Until cancelled; whether it ever was connected."""
    request = build_request("/invocations", body)
    connection: socket.socket | None = None
    try:
        connection = await connect(server.port)
        for index in range(len(request)):
            await asyncio.get_running_loop().sock_sendall(connection, request[index : index + 1])
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        pass
    except OSError:  # the server may well hang up on such a client
        return connection is not None
    finally:
        if connection is not None:
            connection.close()
    return connection is not None


async def _flood(server: Server) -> None:
    """An oversized body a second, until cancelled."""
    request = build_request("/invocations", bytes(OVERSIZED_BYTES))
    while True:
        connection = Connection(server.port)
        await connection.exchange(request, Entry(0, time.monotonic()), seconds=10.0)
        connection.close()
        await asyncio.sleep(1.0)
