"""Do predictions suffer from explanations? Their p99 at full load, with and without `explain=cam` beside it.

    python -m benchmarks.explaining [--artifact FOLDER] [--rounds 6] [--seconds 20]

One server. wrk keeps it busy on 8 connections; in every second window, in turn, another client asks for one
explanation after the other. The process that explains is warm before the first window. p99 and throughput of
each window, the ratio of each pair, and the median of the ratios with the interval that resampling the pairs
gives. The last line on stdout is JSON. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import logging
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from artifact.bundle import open_bundle
from benchmarks.serving.artifacts import prepare_artifact
from benchmarks.serving.load import TIMEOUT_SECONDS, ClosedLoop, LoadError, exchange, run_wrk
from benchmarks.serving.pictures import TYPICAL, prepare_pictures
from benchmarks.serving.requests import Request
from benchmarks.serving.servers import KENNEL, SERVERS, run_server

logger = logging.getLogger(__name__)

CONNECTIONS = 8
RESAMPLINGS = 10_000
EXPLAIN = {"X-Amzn-SageMaker-Custom-Attributes": "explain=cam"}


def main() -> None:
    """Measure, print the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, help="an unpacked model.tar.gz; default: a ResNet-50, int8")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    picture = prepare_pictures()[TYPICAL].read_bytes()
    server = SERVERS[KENNEL]
    model_dir = options.artifact or prepare_artifact("resnet50")
    with run_server(server, model_dir, picture) as running:
        prediction = server.build_request(server.path, picture)
        explanation = dataclasses.replace(prediction, headers={**prediction.headers, **EXPLAIN})
        explain_once(running.port, explanation)
        rounds = [
            measure_round(running.port, prediction, explanation, options) for _ in range(options.rounds)
        ]
    manifest = open_bundle(model_dir).manifest
    print(json.dumps({"architecture": manifest.architecture, **summarise(rounds)}))


def measure_round(
    port: int, prediction: Request, explanation: Request, options: argparse.Namespace
) -> dict[str, float]:
    """A window without explanations, and one with."""
    without = _load(port, prediction, options.seconds)
    with explaining(port, explanation) as explained:
        beside = _load(port, prediction, options.seconds)
    found = {
        "p99_ms": without.p99_ms,
        "p99_explaining_ms": beside.p99_ms,
        "per_second": round(without.per_second, 1),
        "per_second_explaining": round(beside.per_second, 1),
        "explained": len(explained),
    }
    logger.info("%s", found)
    return found


def _load(port: int, prediction: Request, seconds: float) -> ClosedLoop:
    return run_wrk(port, prediction, connections=CONNECTIONS, seconds=seconds)


@contextmanager
def explaining(port: int, explanation: Request) -> Iterator[list[int]]:
    """One request after the other from a thread; the list grows by each answer's status."""
    stop, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.is_set():
            statuses.append(explain_once(port, explanation))

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield statuses
    finally:
        stop.set()
        client.join()


def explain_once(port: int, explanation: Request) -> int:
    """The status: 200, or 503 where it was not begun in time. Raises LoadError for any other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        status = exchange(connection, explanation)
    finally:
        connection.close()
    if status not in (http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE):
        raise LoadError(f"an explanation was answered with {status}")
    return status


def summarise(rounds: list[dict[str, float]]) -> dict[str, object]:
    """The medians and the ratio's interval."""
    ratios = np.array([one["p99_explaining_ms"] / one["p99_ms"] for one in rounds])
    draws = np.random.default_rng(0).choice(ratios, (RESAMPLINGS, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {
        "p99_ms": statistics.median(one["p99_ms"] for one in rounds),
        "p99_explaining_ms": statistics.median(one["p99_explaining_ms"] for one in rounds),
        "p99_ratio": round(float(np.median(ratios)), 3),
        "p99_ratio_interval": [round(float(low), 3), round(float(high), 3)],
        "explained": sum(one["explained"] for one in rounds),
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
