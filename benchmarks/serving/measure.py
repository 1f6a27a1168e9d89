"""What is measured of one running server: the unit from which everything else is put together."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from benchmarks.serving.load import ClosedLoop, run_wrk
from benchmarks.serving.open_loop import OpenLoop, run_open_loop
from benchmarks.serving.pictures import LARGE
from benchmarks.serving.requests import Request
from benchmarks.serving.servers import Running

CONNECTIONS = 8
OPEN_LOOP_SHARE = 0.7  # of the throughput in closed loop
OPEN_LOOP_SECONDS = 8.0  # at least: of fewer requests a hiccup of the host by 50 ms is the 99th percentile
PINGS_PER_SECOND = 20.0
WARM_UP_SECONDS = 2.0
LARGE_SECONDS = 8.0  # at least: slow servers answer two of these a second
PATTERNS = {  # (connections, kept alive)
    "2 connections": (2, True),
    "3 connections": (3, True),
    "8 connections": (8, True),
    "64 connections": (64, True),
    "new connection each": (8, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One server, network and picture. In closed loop at CONNECTIONS, unless it says otherwise."""

    server: str
    network: str
    picture: str
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    single_ms: float  # median of one connection
    cpu_seconds_per_1000: float
    memory_mb: float  # proportional set size after the load, of all processes
    start_seconds: float
    open_loop: OpenLoop | None = None  # at OPEN_LOOP_SHARE of per_second

    @property
    def p99_to_single(self) -> float | None:
        """Open loop's p99 over the single request's latency."""
        return self.open_loop.p99_ms / self.single_ms if self.open_loop else None


def warm_up(running: Running, request: Request) -> None:
    """Every worker answers before anything counts."""
    run_wrk(running.port, request, connections=CONNECTIONS, seconds=WARM_UP_SECONDS)


def measure_closed(running: Running, request: Request, seconds: float) -> ClosedLoop:
    """A slice of the standard closed loop."""
    return run_wrk(running.port, request, connections=CONNECTIONS, seconds=seconds)


def measure_cell(
    running: Running, *, network: str, picture: str, body: bytes, seconds: float, open_loop: bool
) -> Cell:
    """Closed loop, one connection and, where asked for, open loop. Raises LoadError where requests fail."""
    request = running.server.build_request(running.server.path, body)
    warm_up(running, request)
    before = running.processes.cpu_seconds()
    closed = measure_closed(running, request, max(seconds, LARGE_SECONDS) if picture == LARGE else seconds)
    cpu_seconds = running.processes.cpu_seconds() - before
    memory_mb = running.processes.memory_mb()
    single = run_wrk(running.port, request, connections=1, seconds=max(1.0, seconds / 2))
    opened = None
    if open_loop:
        rate = OPEN_LOOP_SHARE * closed.per_second
        opened = run_open_loop(running.port, request, rate=rate, seconds=max(seconds, OPEN_LOOP_SECONDS))
    return Cell(
        server=running.server.name,
        network=network,
        picture=picture,
        per_second=closed.per_second,
        p50_ms=closed.p50_ms,
        p99_ms=closed.p99_ms,
        p999_ms=closed.p999_ms,
        single_ms=single.p50_ms,
        cpu_seconds_per_1000=1000 * cpu_seconds / closed.requests,
        memory_mb=memory_mb,
        start_seconds=running.start_seconds,
        open_loop=opened,
    )


def measure_patterns(running: Running, body: bytes, seconds: float) -> dict[str, float]:
    """Answers a second by connection pattern; the usual eight once more, in the same minute."""
    request = running.server.build_request(running.server.path, body)
    return {
        name: run_wrk(
            running.port, request, connections=connections, seconds=seconds, keep_alive=keep_alive
        ).per_second
        for name, (connections, keep_alive) in PATTERNS.items()
    }


def measure_ping(running: Running, body: bytes, seconds: float) -> OpenLoop:
    """The health route's latency while the closed loop keeps every core busy."""
    request = running.server.build_request(running.server.path, body)
    load = threading.Thread(target=measure_closed, args=(running, request, seconds + 1))
    load.start()
    try:
        ping = Request(path=running.server.health, method="GET")
        return run_open_loop(running.port, ping, rate=PINGS_PER_SECOND, seconds=seconds)
    finally:
        load.join()
