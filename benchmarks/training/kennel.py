"""Kennel's own side: decode, features where the backbone is frozen, and the loop, as a job runs them.

    python -m benchmarks.training.kennel --data DIR --architecture resnet18 --seconds 20 [--set K=V ...]

The export that follows in a job is left out: the peers have none. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from artifact.cores import available_cores
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.data import ImageSet, decode_images, read_image_folder
from training.distributed import Place, World
from training.features import collect_features
from training.hyperparameters import Hyperparameters, parse_hyperparameters
from training.loop import train, use_bf16
from training.network import freeze_backbone, load_backbone, read_state_dict
from training.observer import Observer, StepFacts
from training.session import Progress, Session

WARMUP_STEPS = 2
DATA_PHASES = ("data", "transfer", "augment")


class Watch(Observer):
    """Times the steps; `is_over` after `seconds` of them, or once the target is reached."""

    def __init__(self, *, seconds: float, target: float) -> None:
        self._seconds, self._target = seconds, target
        self.is_over = False
        self._images = self._steps = 0
        self._waited = self._spent = self._began = 0.0

    def step_starts(self, step: int) -> None:
        self._began = time.perf_counter()

    def phase(self, name: str) -> AbstractContextManager[None]:
        return self._time(name)

    def step_ends(self, facts: StepFacts) -> None:
        self._steps += 1
        if self._steps <= WARMUP_STEPS:
            self._waited = 0.0
            return
        self._images += facts.images
        self._spent += time.perf_counter() - self._began
        self.is_over = bool(self._seconds) and self._spent >= self._seconds

    def evaluated(self, *, metrics: dict[str, float], **rest: object) -> None:
        self.is_over = bool(self._target) and metrics["top1_accuracy"] >= self._target

    def report(self) -> dict[str, float]:
        """As a peer's clock."""
        spent = max(1e-9, self._spent)
        return {"images_per_second": self._images / spent, "data_wait_share": self._waited / spent}

    @contextlib.contextmanager
    def _time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if name in DATA_PHASES:
            self._waited += time.perf_counter() - began


def main() -> None:
    """Train as asked and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--target", type=float, default=0.0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--save", type=Path, help="file for the trained network's state dict")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    began = time.perf_counter()
    hyperparameters = parse_hyperparameters(dict(pair.split("=", 1) for pair in options.set))
    watch = Watch(seconds=options.seconds, target=options.target)
    with contextlib.redirect_stdout(sys.stderr):  # the metrics
        session = open_session(options.data, hyperparameters, watch, options.weights)
        prepared = time.perf_counter() - began
        progress = train(session, None)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        torch.save(session.network.network.state_dict(), options.save)
    spent = time.perf_counter() - began
    print(
        json.dumps(
            watch.report() | {"accuracy": last_accuracy(progress), "seconds": spent, "prepared": prepared}
        )
    )


def open_session(data: Path, hyperparameters: Hyperparameters, watch: Watch, weights: Path | None) -> Session:
    """As training/run.py opens one, on one machine."""
    torch.set_num_threads(available_cores())
    images = read_images(data, hyperparameters)
    torch.manual_seed(hyperparameters.seed)
    network = build_network(hyperparameters.architecture, len(images["train"].folder.labels))
    if weights:
        load_backbone(network, read_state_dict(weights), source=str(weights))
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    preprocess = Preprocess(resize=hyperparameters.resize_side, crop=hyperparameters.image_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    session = Session(
        network=PixelNetwork(network, preprocess).to(device).to(memory_format=torch.channels_last),
        hyperparameters=hyperparameters,
        train=images["train"],
        valid=images["valid"],
        device=device,
        bf16=use_bf16(hyperparameters.precision, device),
        save=lambda state, step: None,
        stopped=lambda: watch.is_over,
        world=World(Place()),
        observer=watch,
    )
    features = collect_features(
        session.network,
        hyperparameters,
        train=session.train,
        valid=session.valid,
        device=device,
        bf16=session.bf16,
        world=session.world,
    )
    return replace(session, features=features)


def read_images(data: Path, hyperparameters: Hyperparameters) -> dict[str, ImageSet]:
    """Decoded: training images uncropped, validation images cropped."""
    folder = read_image_folder(data / "train")
    size, resize = hyperparameters.image_size, hyperparameters.resize_side
    return {
        "train": decode_images(folder, Preprocess(resize=resize, crop=resize), max_unreadable=0.01),
        "valid": decode_images(
            read_image_folder(data / "valid", folder.labels),
            Preprocess(resize=resize, crop=size),
            max_unreadable=0.01,
        ),
    }


def last_accuracy(progress: Progress) -> float:
    """Of the last epoch, as the peers report it."""
    return progress.history[-1]["validation_top1_accuracy"] if progress.history else 0.0


if __name__ == "__main__":
    main()
