"""What every scenario gets, and what it gives back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifact.cores import available_cores
from chaos.connection import build_request
from chaos.ledger import Ledger
from chaos.load import Target, closed_loop
from chaos.server import Server, running

RECOVERED = 0.95  # of the goodput before
RECOVERED_SHORT = 0.8  # over a few seconds of a shared machine
SETTLE_SECONDS = 1.0  # of a load before anything is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A scenario's verdict: passed, failed, or with `skipped` the reason why it was not run."""

    name: str
    passed: bool
    numbers: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""

    def line(self) -> str:
        """For people."""
        verdict = "SKIP" if self.skipped else "PASS" if self.passed else "FAIL"
        numbers = " ".join(f"{name}={_shown(value)}" for name, value in self.numbers.items())
        return f"{verdict} {self.name}: {self.skipped or numbers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The model, the pictures, and how long to torment the server."""

    model_dir: Path
    bodies: Sequence[bytes]  # JPEG
    scratch: Path
    seeds: Sequence[bytes] = ()  # what fuzzing mutates
    familiar: Sequence[bytes] = ()  # pictures as the model was validated on
    odd: Path | None = None  # the collection of docs/odd-images.md
    short: bool = False
    connections: int = 8
    soak_minutes: float = 0.0
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def pick(self, *, short: float, long: float) -> float:
        """A duration or a number, by the form."""
        return short if self.short else long

    @property
    def recovered(self) -> float:
        """The share of a goodput that counts as all of it."""
        return self.pick(short=RECOVERED_SHORT, long=RECOVERED)

    def log(self) -> Path:
        """A fresh file for a server's words."""
        return self.scratch / f"server-{next(self._serial)}.log"

    def target(self, server: Server) -> Target:
        """Pictures for this server."""
        return Target(server.port, [build_request("/invocations", body) for body in self.bodies])

    @asynccontextmanager
    async def server(self, *, limits: str = "", **variables: str) -> AsyncIterator[Server]:
        """A fresh server."""
        async with running(self.model_dir, self.log(), limits=limits, **variables) as server:
            yield server


@dataclass(frozen=True, slots=True)
class Peak:
    """What the server does at most."""

    goodput: float  # 2xx per second
    p99: float  # seconds
    cores: float  # that the driver, on the same machine, left to the server
    busy: float  # cores that the processes that predict kept busy


async def measure_peak(lab: Lab, server: Server, *, connections: int = 0) -> Peak:
    """Goodput and p99 with all connections busy, after settling."""
    seconds = lab.pick(short=4, long=10)
    async with closed_loop(lab.target(server), connections=connections or lab.connections) as ledger:
        await asyncio.sleep(SETTLE_SECONDS)
        watch, worked = Stopwatch(), server.predicting_seconds()
        await asyncio.sleep(seconds)
        cores, busy = watch.cores_left(), (server.predicting_seconds() - worked) / seconds
        end = time.monotonic()
    start = watch.started
    return Peak(ledger.goodput(start, end), ledger.between(start, end).seconds(0.99), cores, busy)


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """What the driver itself takes of the machine."""

    started: float = field(default_factory=time.monotonic)
    worked: float = field(default_factory=time.process_time)

    def cores_left(self) -> float:
        """Cores less those that this process kept busy since the start."""
        share = (time.process_time() - self.worked) / (time.monotonic() - self.started)
        return available_cores() - share


def recovery(ledger: Ledger, *, before: tuple[float, float], after: tuple[float, float]) -> float:
    """Goodput after over goodput before."""
    was = ledger.goodput(*before)
    return ledger.goodput(*after) / was if was else 0.0


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")
