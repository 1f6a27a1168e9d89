"""Open-loop load: requests leave at a constant rate, whether or not earlier ones were answered.

Latency counts from the moment a request should have left, so a server that stalls is charged for every
request that had to wait (Tene's "coordinated omission"). Own code: of what apt, pip and npm offer, wrk, hey,
autocannon and locust are closed loops, whose next request waits for an answer; wrk2 and vegeta are not
packaged.
"""

from __future__ import annotations

import http.client
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.serving.load import TIMEOUT_SECONDS, LoadError, exchange
from benchmarks.serving.requests import Request

MOST_IN_FLIGHT = 64  # more wait here, which counts as latency


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
    idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
    for _ in range(MOST_IN_FLIGHT):  # connected when first used
        idle.put(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS))

    def send(due: float) -> float:
        connection = idle.get()
        try:
            status = exchange(connection, request)
        finally:
            idle.put(connection)
        if status != http.HTTPStatus.OK:
            raise LoadError(f"{request.path} was answered with {status} at {rate:.1f} requests a second")
        return time.perf_counter() - due

    started = time.perf_counter() + 0.05
    with ThreadPoolExecutor(MOST_IN_FLIGHT) as pool:
        pending = []
        for index in range(max(1, round(rate * seconds))):
            due = started + index / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            pending.append(pool.submit(send, due))
    while not idle.empty():
        idle.get().close()
    latencies = [1000 * each.result() for each in pending]
    return OpenLoop(
        rate=rate,
        requests=len(latencies),
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        p999_ms=percentile(latencies, 99.9),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    rank = -(-len(ranked) * percent // 100)  # rounded up
    return ranked[max(0, min(len(ranked), int(rank)) - 1)]
