"""What watching costs a training step: nothing, the debugger at its defaults, smdebug's own hook.

    python -m benchmarks.debugger_overhead [--rounds 8] [--batch-size 32]

ResNet-18 at 224 on this machine's device. The three take their steps in turn, in another order each time, so
that a machine whose speed drifts slows all of them; a round is as many steps of each as lie between two
recordings, so that it records once. The debugger's threads (sampler, rules) slow all three alike, so their
processor time is counted apart, as a share of the cores, and added. Start and end of the watching are left
out, and so is the operator profiler: it looks at three steps of a whole job. smdebug writes the losses,
weights, biases and gradients of the same steps. The last line of stdout is JSON: milliseconds, and the
overhead over a round's unwatched steps as the median over rounds with its 95 % interval (bootstrap).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from artifact.cores import available_cores
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.debugging.hook import build_hook
from training.debugging.observers import FOLDER, build_observer
from training.debugging.recorder import MOST_STEPS_BETWEEN
from training.debugging.series import TRAIN, read_series
from training.hyperparameters import Hyperparameters
from training.job import Job, read_job
from training.loop import use_bf16
from training.observer import Observer
from training.schedule import build_optimizer
from training.session import Learner, Progress, Session
from training.step import take_step

KINDS = ("nothing", "debugger", "smdebug")
THREADS = ("sampler", "rules")  # of training/debugging
NUM_CLASSES = 10
STEPS = 1000  # of the job these blocks stand for: long enough for the default interval
WARM_UP_STEPS = 3
RESAMPLES = 10_000


@dataclass(slots=True, kw_only=True)
class Training:
    """One network that is trained on, block by block."""

    session: Session
    optimizer: torch.optim.Optimizer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=MOST_STEPS_BETWEEN, help="of a block, and from one "
                        "recording to the next")  # fmt: skip
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    torch.set_num_threads(available_cores())
    hyperparameters = Hyperparameters(
        architecture="resnet18",
        batch_size=options.batch_size,
        image_size=options.image_size,
        debug_interval=options.steps,
        profile_steps=0,
    )
    trainings = {kind: _open(hyperparameters) for kind in KINDS}
    _run_round(trainings, dict.fromkeys(KINDS, Observer()), WARM_UP_STEPS)
    rows, recording = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as prefix:
            job = read_job(Path(prefix))
            observers = {
                kind: _observer(kind, job, hyperparameters, trainings[kind].session) for kind in KINDS
            }
            row = _run_round(trainings, observers, options.steps)
            recording.append(_recorded_share(job))
        rows.append(row)
        print({name: round(value, 4) for name, value in row.items()}, file=sys.stderr)
    print(json.dumps(_summarise(rows, recording, options, trainings["nothing"].session)))


def _open(hyperparameters: Hyperparameters) -> Training:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side, count = hyperparameters.resize_side, 2 * hyperparameters.batch_size
    preprocess = Preprocess(resize=side, crop=hyperparameters.image_size)
    network = PixelNetwork(build_network(hyperparameters.architecture, NUM_CLASSES), preprocess)
    session = Session(
        network=network.to(device).to(memory_format=torch.channels_last),
        hyperparameters=hyperparameters,
        train=_draw(count, side),
        valid=None,
        device=device,
        bf16=use_bf16("auto", device),
        save=lambda state, step: None,
        stopped=lambda: False,
    )
    network.network.train()
    return Training(session=session, optimizer=build_optimizer(session.network, hyperparameters))


def _draw(count: int, side: int) -> ImageSet:
    """Noise: a step takes as long on it."""
    random = np.random.default_rng(0)
    folder = ImageFolder(
        root=Path("none"),
        labels=tuple(map(str, range(NUM_CLASSES))),
        paths=tuple(map(str, range(count))),
        targets=np.arange(count, dtype=np.int64) % NUM_CLASSES,
    )
    pixels = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ImageSet(folder=folder, pixels=pixels, fingerprint="", unreadable=())


def _observer(kind: str, job: Job, hyperparameters: Hyperparameters, session: Session) -> Observer:
    if kind == "smdebug":
        return build_hook(job, job.output_dir / kind, asked=True, interval=hyperparameters.debug_interval)
    if kind == "nothing":
        return Observer()
    return build_observer(
        job,
        hyperparameters,
        labels=session.train.folder.labels,
        facts={"device": session.device.type, "batch_size": hyperparameters.batch_size},
        total_steps=STEPS,
        device=session.device,
    )


def _run_round(
    trainings: Mapping[str, Training], observers: Mapping[str, Observer], steps: int
) -> dict[str, float]:
    """Kind -> seconds per step, `threads` -> their share of the cores. A round's first step is recorded."""
    seconds = dict.fromkeys(KINDS, 0.0)
    sessions = {kind: replace(trainings[kind].session, observer=observers[kind]) for kind in KINDS}
    learners = {
        kind: Learner(progress=Progress(), optimizer=one.optimizer, average=None, class_weights=None)
        for kind, one in trainings.items()
    }
    with ExitStack() as watching:
        for kind, session in sessions.items():
            watching.enter_context(closing(observers[kind]))
            observers[kind].watch(session.network.network)
        began, worked = time.perf_counter(), _thread_seconds()
        for step in range(steps):
            for kind in (*KINDS[step % 3 :], *KINDS[: step % 3]):
                session = sessions[kind]
                size = session.hyperparameters.batch_size
                batch: NDArray[np.int64] = (np.arange(size) + step) % len(session.train)
                _wait(session.device)
                started = time.perf_counter()
                take_step(session, learners[kind], batch)
                _wait(session.device)
                seconds[kind] += (time.perf_counter() - started) / steps
        share = (_thread_seconds() - worked) / (time.perf_counter() - began) / available_cores()
    return seconds | {"threads": share}


def _thread_seconds() -> float:
    """Processor time of the debugger's own threads."""
    own = {thread.native_id for thread in threading.enumerate() if thread.name in THREADS}
    threads = [thread for thread in psutil.Process().threads() if thread.id in own]
    return sum(thread.user_time + thread.system_time for thread in threads)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _recorded_share(job: Job) -> float:
    """By the recorder's own clock, which the machine's other load disturbs less; without its threads."""
    seconds = [step.seconds for step in read_series(job.output_dir / FOLDER).steps if step.mode == TRAIN]
    return sum(step["record"] for step in seconds) / sum(step["total"] for step in seconds)


def _summarise(
    rows: list[dict[str, float]], recording: list[float], options: argparse.Namespace, session: Session
) -> dict[str, object]:
    found: dict[str, object] = {
        "architecture": session.hyperparameters.architecture,
        "device": session.device.type,
        "precision": "bf16" if session.bf16 else "fp32",
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "steps_per_block": options.steps,
        "rounds": len(rows),
        "recorder_share_percent": round(100 * float(np.median(recording)), 3),
    }
    found["thread_share_percent"] = round(100 * float(np.median([row["threads"] for row in rows])), 3)
    for kind in KINDS:
        found[f"{kind}_step_ms"] = round(1000 * float(np.median([row[kind] for row in rows])), 2)
    for kind in KINDS[1:]:
        threads = [row["threads"] if kind == "debugger" else 0.0 for row in rows]
        overheads = 100 * (np.array([row[kind] / row["nothing"] - 1 for row in rows]) + threads)
        found[f"{kind}_overhead_percent"] = round(float(np.median(overheads)), 3)
        found[f"{kind}_overhead_interval"] = _interval(overheads)
    return found


def _interval(values: NDArray[np.float64]) -> list[float]:
    """95 % of the medians of resamples."""
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), (2.5, 97.5))
    return [round(float(low), 3), round(float(high), 3)]


if __name__ == "__main__":
    main()
