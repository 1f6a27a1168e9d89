"""Open-loop load: requests leave at a constant rate, whether or not earlier ones were answered.

Latency counts from the moment a request should have left, so a server that stalls is charged for every
request that had to wait (Tene's "coordinated omission"). Own code, the chaos suite's, in one thread that
leaves the processor to the server: of what apt, pip and npm offer, wrk, hey, autocannon and locust are closed
loops, whose next request waits for an answer; wrk2 and vegeta are not packaged.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.load import LoadError
from benchmarks.serving.requests import Request
from chaos.connection import Connection, build_request
from chaos.ledger import NEVER_TAKEN, Entry, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Latencies in ms, from the intended time of sending to the last byte of the answer."""

    rate: float
    requests: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


def run_open_loop(port: int, request: Request, *, rate: float, seconds: float) -> OpenLoop:
    """`rate` requests a second for `seconds`. Raises LoadError where one was not answered with 200."""
    count = max(1, round(rate * seconds))
    body = request.body if request.method == "POST" else None
    sent = build_request(request.path, body, request.headers.get("Content-Type", ""))
    ledger = asyncio.run(_send_all(port, sent, rate, count))
    for entry in ledger.entries:
        if entry.status != http.HTTPStatus.OK:
            answer = entry.status or entry.fate.value
            raise LoadError(f"{request.path} was answered with {answer} at {rate:.1f} requests a second")
    latencies = [1000 * entry.seconds for entry in ledger.entries]
    return OpenLoop(
        rate=rate,
        requests=len(latencies),
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        p999_ms=percentile(latencies, 99.9),
    )


async def _send_all(port: int, sent: bytes, rate: float, count: int) -> Ledger:
    ledger, idle, asked = Ledger(), list[Connection](), list[asyncio.Task[None]]()

    async def ask(entry: Entry) -> None:
        connection = idle.pop() if idle else Connection(port)
        await connection.exchange(sent, entry)
        if entry.fate in NEVER_TAKEN:  # the server had hung up on an idle connection
            await connection.exchange(sent, entry)
        idle.append(connection)

    started = time.monotonic() + 0.05
    for index in range(count):
        due = started + index / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asked.append(asyncio.create_task(ask(ledger.open(due))))
    await asyncio.gather(*asked)
    for connection in idle:
        connection.close()
    return ledger


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    rank = -(-len(ranked) * percent // 100)  # rounded up
    return ranked[max(0, min(len(ranked), int(rank)) - 1)]
