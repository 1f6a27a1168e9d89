"""Kennel in a container with a CPU quota against its limit in another with the same quota.

wrk runs outside: the quota is the server's alone, so the load generator costs it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.artifacts import prepare_artifact
from benchmarks.serving.ceiling import container_limit, measure_arrangements
from benchmarks.serving.load import run_wrk
from benchmarks.serving.measure import CONNECTIONS, WARM_UP_SECONDS
from benchmarks.serving.requests import raw_request
from benchmarks.serving.summary import NetworkRun, Round, summarize
from local.endpoint import start_endpoint

ROUNDS = 4


def run_with_quota(
    networks: Sequence[str], picture: Path, *, image: str, cpus: str, seconds: float
) -> dict[str, Any]:
    """The JSON of a run. Raises LocalError without a Docker engine or the image."""
    runs = [_run_network(network, picture, image=image, cpus=cpus, seconds=seconds) for network in networks]
    return {"cpus": cpus, "networks": {run.network: summarize(run) for run in runs}}


def _run_network(network: str, picture: Path, *, image: str, cpus: str, seconds: float) -> NetworkRun:
    model_dir = prepare_artifact(network)
    run = NetworkRun(network=network)
    request = raw_request("/invocations", picture.read_bytes())
    limit = container_limit(model_dir, picture, image=image, cpus=cpus)
    with start_endpoint(model_dir, image=image, options=("--cpus", cpus)) as endpoint:
        run_wrk(endpoint.port, request, connections=CONNECTIONS, seconds=WARM_UP_SECONDS)
        run.arrangements = measure_arrangements(limit, seconds)
        run.best_arrangement = max(run.arrangements, key=lambda name: run.arrangements[name])
        for _ in range(ROUNDS):
            kennel = run_wrk(endpoint.port, request, connections=CONNECTIONS, seconds=seconds).per_second
            run.rounds.append(Round(kennel=kennel, limit=limit(run.best_arrangement, seconds)))
    return run
