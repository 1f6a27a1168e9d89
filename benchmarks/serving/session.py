"""One run: per network Kennel stays up (idle costs nothing) while the peers come and go beside it."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.artifacts import prepare_artifact
from benchmarks.serving.ceiling import local_limit, measure_arrangements
from benchmarks.serving.environments import PeerInstallError, prepare_environment
from benchmarks.serving.load import LoadError
from benchmarks.serving.measure import Cell, measure_cell, measure_closed, measure_patterns, measure_ping
from benchmarks.serving.open_loop import OpenLoop
from benchmarks.serving.pictures import TYPICAL
from benchmarks.serving.servers import KENNEL, SERVERS, Running, ServerError, run_server
from benchmarks.serving.summary import NetworkRun, Round

logger = logging.getLogger(__name__)

ALL_PICTURES_NETWORK = "resnet50"  # the other networks are measured on the typical picture alone
PATTERN_NETWORKS = ("resnet50", "resnet18")
PING_SHARE = 2.0  # of `seconds`: a 99.9th percentile wants many pings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run."""

    servers: tuple[str, ...]
    networks: tuple[str, ...]
    pictures: tuple[str, ...]
    seconds: float  # of one slice

    @property
    def peers(self) -> tuple[str, ...]:
        """The servers but for Kennel, which always runs."""
        return tuple(name for name in self.servers if name != KENNEL)

    def pictures_of(self, network: str) -> tuple[str, ...]:
        """The typical one first; the others for ALL_PICTURES_NETWORK, or where it is not asked for at all."""
        if network == ALL_PICTURES_NETWORK:
            return self.pictures
        return tuple(name for name in self.pictures if name == TYPICAL)


@dataclass(slots=True, kw_only=True)
class Session:
    """What a run has found so far."""

    plan: Plan
    pictures: Mapping[str, Path]
    tell: Callable[[str], None]  # after each step, what it was
    cells: list[Cell] = field(default_factory=list)
    networks: dict[str, NetworkRun] = field(default_factory=dict)
    pings: dict[str, OpenLoop] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # peer -> why it is absent


def num_steps(plan: Plan) -> int:
    """How often `tell` is called: per network Kennel, each peer and the last round."""
    return len(plan.networks) * (len(plan.peers) + 2)


def install_peers(session: Session) -> None:
    """Environments first, so that no download runs beside a measurement."""
    for name in session.plan.peers:
        try:
            prepare_environment(name)
        except PeerInstallError as error:
            _give_up(session, name, error)


def run_network(session: Session, network: str) -> None:
    """Kennel, then K L before each peer and at the end. What Kennel or the limit cannot do ends the run."""
    model_dir = prepare_artifact(network)
    run = session.networks[network] = NetworkRun(network=network)
    limit = local_limit(model_dir, session.pictures[TYPICAL])
    seconds = session.plan.seconds
    run.arrangements = measure_arrangements(limit, seconds)
    run.best_arrangement = max(run.arrangements, key=lambda name: run.arrangements[name])
    typical = session.pictures[TYPICAL].read_bytes()
    with run_server(SERVERS[KENNEL], model_dir, typical) as kennel:
        _measure_kennel(session, run, kennel)
        session.tell(f"{network} {KENNEL}")

        def add_round() -> None:
            request = kennel.server.build_request(kennel.server.path, typical)
            slice_ = measure_closed(kennel, request, seconds).per_second
            run.rounds.append(Round(kennel=slice_, limit=limit(run.best_arrangement, seconds)))

        for name in session.plan.peers:
            if name not in session.failures:
                add_round()
                _measure_peer(session, run, name, model_dir)
            session.tell(f"{network} {name}")
        add_round()
    session.tell(f"{network} limit")


def _measure_kennel(session: Session, run: NetworkRun, kennel: Running) -> None:
    _measure_pictures(session, run.network, kennel)
    if run.network in PATTERN_NETWORKS:
        body, seconds = session.pictures[TYPICAL].read_bytes(), session.plan.seconds
        run.patterns = measure_patterns(kennel, body, seconds)
        session.pings[run.network] = measure_ping(kennel, body, PING_SHARE * seconds)


def _measure_peer(session: Session, run: NetworkRun, name: str, model_dir: Path) -> None:
    typical = session.pictures[TYPICAL].read_bytes()
    before = len(run.rounds) - 1
    try:
        with run_server(SERVERS[name], model_dir, typical) as running:
            cells = _measure_pictures(session, run.network, running)
    except (ServerError, LoadError, OSError, subprocess.SubprocessError) as error:
        _give_up(session, name, error)
        return
    typical_cell = next(cell for cell in cells if cell.picture == TYPICAL)
    run.peers[name] = (before, typical_cell.per_second)


def _measure_pictures(session: Session, network: str, running: Running) -> list[Cell]:
    cells = [
        measure_cell(
            running,
            network=network,
            picture=picture,
            body=session.pictures[picture].read_bytes(),
            seconds=session.plan.seconds,
            open_loop=picture == TYPICAL,
        )
        for picture in session.plan.pictures_of(network)
    ]
    session.cells += cells
    return cells


def _give_up(session: Session, name: str, error: Exception) -> None:
    session.failures[name] = str(error)
    logger.warning("%s is left out: %s", name, error)
