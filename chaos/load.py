"""Load: connections that always have a request in hand, or requests due at a rate, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos.connection import Connection, build_request, connect
from chaos.ledger import Entry, Fate, Ledger

MAX_CONNECTIONS = 512  # of an open loop; more are a fault of the server's, not a load
PING_SECONDS = 2.0  # SageMaker gives one /ping this long


@dataclass(frozen=True, slots=True)
class Target:
    """A port and the requests to send there, in turn."""

    port: int
    requests: Sequence[bytes]


@asynccontextmanager
async def closed_loop(target: Target, *, connections: int) -> AsyncIterator[Ledger]:
    """Load while the context lasts; at its end requests in hand are awaited."""
    ledger, stop = Ledger(), asyncio.Event()
    requests = itertools.cycle(target.requests)

    async def ask() -> None:
        connection = Connection(target.port)
        while not stop.is_set():
            entry = ledger.open(time.monotonic())
            await connection.exchange(next(requests), entry)
            if entry.fate in (Fate.NOT_CONNECTED, Fate.TURNED_AWAY):
                await asyncio.sleep(0.02)  # as a client would, and to leave the server the processor
        connection.close()

    tasks = [asyncio.create_task(ask()) for _ in range(connections)]
    try:
        yield ledger
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@dataclass(slots=True)
class Pace:
    """How fast an open loop goes; may be changed while it does."""

    rate: float  # requests due a second, on average


async def open_loop(target: Target, ledger: Ledger, pace: Pace, *, seconds: float) -> None:
    """Requests due at random times, whatever happens; late ones are not left out."""
    random_gaps = random.Random(0)
    requests = itertools.cycle(target.requests)
    idle: list[Connection] = []
    pending: set[asyncio.Task[None]] = set()
    due, end = time.monotonic(), time.monotonic() + seconds

    async def ask(entry: Entry) -> None:
        connection = idle.pop() if idle else Connection(target.port)
        await connection.exchange(next(requests), entry)
        idle.append(connection)

    while (due := due + random_gaps.expovariate(pace.rate)) < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        entry = ledger.open(due)
        if len(pending) >= MAX_CONNECTIONS:
            entry.ended, entry.fate = time.monotonic(), Fate.TIMED_OUT
            continue
        task = asyncio.create_task(ask(entry))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    for connection in idle:
        connection.close()


@asynccontextmanager
async def pings(port: int, *, every: float = 0.25) -> AsyncIterator[Ledger]:
    """/ping on a new connection each time, as a load balancer does, while the context lasts."""
    ledger, stop = Ledger(), asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            connection = Connection(port)
            await connection.exchange(
                build_request("/ping"), ledger.open(time.monotonic()), seconds=PING_SECONDS
            )
            connection.close()
            await asyncio.sleep(every)

    task = asyncio.create_task(ask())
    try:
        yield ledger
    finally:
        stop.set()
        await task


async def wait_until_not_listening(port: int) -> float:
    """When a connection was first refused."""
    while True:
        try:
            (await connect(port)).close()
        except OSError:
            return time.monotonic()
        await asyncio.sleep(0.01)
