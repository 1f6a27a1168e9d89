"""The ceiling: decode and infer in processes of their own, without HTTP; the same bytes, function and graph.

    python -m benchmarks.serving.limit --artifact DIR --picture FILE --arrangement pinned --seconds 5
    python -m benchmarks.serving.limit --artifact DIR --picture FOLDER ...     its JPEGs, over and over

prints {"arrangement", "cores", "images", "seconds", "per_second"}. Needs the serving environment only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from artifact.bundle import open_bundle
from artifact.cores import available_cores
from artifact.preprocess import decode_pixels
from serving.engine_openvino import OpenVinoPredictor

WARM_UP_IMAGES = 5
START_SECONDS = 120  # for all processes to be ready; if one fails the others must not wait for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the cores are shared out. `None` stands for one per core."""

    pinned: bool  # each process to its own core
    processes: int | None  # of which each has
    threads: int | None  # that decode and take turns at
    predictors: int | None  # graphs, each computing on
    inference_threads: int | None
    batch: int = 1  # pictures decoded, then predicted together


ARRANGEMENTS = {
    # A process per core with one thread of inference, held there, with a picture or eight at once, or left to
    # the scheduler.
    "pinned": Arrangement(pinned=True, processes=None, threads=1, predictors=1, inference_threads=1),
    "batches": Arrangement(
        pinned=True, processes=None, threads=1, predictors=1, inference_threads=1, batch=8
    ),
    "unpinned": Arrangement(pinned=False, processes=None, threads=1, predictors=1, inference_threads=1),
    # One process: a stream per core, or one stream over all of them while another thread decodes.
    "streams": Arrangement(pinned=False, processes=1, threads=None, predictors=None, inference_threads=1),
    "threads": Arrangement(pinned=False, processes=1, threads=None, predictors=1, inference_threads=None),
}


def main() -> None:
    """Run one arrangement and print its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--arrangement", choices=ARRANGEMENTS, default="pinned")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    result = measure_limit(
        options.artifact, options.picture, options.arrangement, options.precision, options.seconds
    )
    print(json.dumps({"arrangement": options.arrangement, "cores": available_cores(), **result}))


def measure_limit(
    artifact: Path, picture: Path, arrangement: str, precision: str, seconds: float
) -> dict[str, float]:
    """Images and seconds of all processes, which start together and each stop by the clock."""
    chosen, cores = ARRANGEMENTS[arrangement], available_cores()
    context = multiprocessing.get_context("spawn")  # OpenVINO's threads do not survive a fork
    num_processes = chosen.processes or cores
    barrier, counts = context.Barrier(num_processes), context.SimpleQueue()
    bodies = [path.read_bytes() for path in _list_pictures(picture)]
    usable = sorted(os.sched_getaffinity(0))
    workers = [
        context.Process(
            target=_work,
            kwargs={
                "artifact": artifact,
                "bodies": _rotate(bodies, index * len(bodies) // num_processes),
                "arrangement": chosen,
                "cores": cores,
                "core": usable[index % len(usable)],
                "precision": precision,
                "seconds": seconds,
                "barrier": barrier,
                "report": counts.put,
            },
        )
        for index in range(num_processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("A process of the limit failed (see above).")
    rates = [counts.get() for _ in workers]
    images = sum(count for count, _ in rates)
    return {
        "images": images,
        "seconds": round(max(spent for _, spent in rates), 3),
        "per_second": round(sum(count / spent for count, spent in rates), 2),
    }


def _list_pictures(picture: Path) -> list[Path]:
    return sorted(picture.rglob("*.jpg")) if picture.is_dir() else [picture]


def _rotate(bodies: list[bytes], start: int) -> list[bytes]:
    return bodies[start:] + bodies[:start]


def _work(
    *,
    artifact: Path,
    bodies: list[bytes],
    arrangement: Arrangement,
    cores: int,
    core: int,
    precision: str,
    seconds: float,
    barrier: Barrier,
    report: Callable[[tuple[int, float]], None],
) -> None:
    if arrangement.pinned:
        os.sched_setaffinity(0, {core})  # before OpenVINO makes its threads
    bundle = open_bundle(artifact)
    predictors = [
        OpenVinoPredictor(bundle, precision=precision, num_threads=arrangement.inference_threads or cores)
        for _ in range(arrangement.predictors or cores)
    ]

    # The threads of a process share the pictures out, as an iterator does without a lock.
    endless = itertools.cycle(bodies)

    def answer(index: int) -> None:
        pixels = [decode_pixels(next(endless), bundle.manifest.preprocess) for _ in range(arrangement.batch)]
        predictors[index % len(predictors)].predict(np.stack(pixels))

    for _ in range(WARM_UP_IMAGES):  # in this thread alone: OpenVINO can hang on concurrent first inferences
        for index in range(len(predictors)):
            answer(index)
    barrier.wait(START_SECONDS)
    count, spent = _repeat(answer, arrangement.threads or cores, seconds)
    report((count * arrangement.batch, spent))


def _repeat(answer: Callable[[int], None], num_threads: int, seconds: float) -> tuple[int, float]:
    """(calls answered, seconds taken) by threads that each stop at the first call past the deadline."""
    counts = [0] * num_threads
    started = time.perf_counter()

    def loop(index: int) -> None:
        while time.perf_counter() - started < seconds:
            answer(index)
            counts[index] += 1

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.perf_counter() - started


if __name__ == "__main__":
    main()
