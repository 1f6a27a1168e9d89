"""Small trainings in this process, watched as a job's are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from artifact.network import PixelNetwork
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.debugging.observers import FOLDER, build_observer
from training.debugging.series import Series, read_series
from training.hyperparameters import parse_hyperparameters
from training.job import Job, read_job
from training.loop import Progress, Session, train
from training.observer import Observer

SIDE = 16
QUICK = {
    "image_size": str(SIDE), "resize": str(SIDE), "batch_size": "8", "epochs": "2", "precision": "fp32",
    "learning_rate": "0.02", "debug_interval": "1", "debug_rules": "none", "profile_steps": "0",
    "profile_interval_ms": "0",
}  # fmt: skip
TRAIN_IMAGES, VALID_IMAGES = 24, 10


def draw_images(count: int, seed: int) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, SIDE, SIDE, 3)) + 100 * targets[:, None, None, None]
    folder = ImageFolder(
        root=Path("none"),
        labels=("dark", "light"),
        paths=tuple(f"{index}.png" for index in range(count)),
        targets=targets.astype(np.int64),
    )
    return ImageSet(folder=folder, pixels=pixels.astype(np.uint8), fingerprint="", unreadable=())


def small_network(activation: nn.Module | None = None) -> nn.Sequential:
    """One convolution with batch norm, the activation, and a linear layer; the same weights every time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        activation or nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def train_watched(
    prefix: Path, network: nn.Module, settings: Mapping[str, str] | None = None, *, watched: bool = True
) -> tuple[Series, Progress]:
    """Two classes, 3 steps an epoch, each recorded unless `settings` differ; an error passes through."""
    job = read_job(prefix)
    hyperparameters = parse_hyperparameters(QUICK | dict(settings or {}))
    session = Session(
        network=PixelNetwork(network, Preprocess(resize=SIDE, crop=SIDE)),
        hyperparameters=hyperparameters,
        train=draw_images(TRAIN_IMAGES, 0),
        valid=draw_images(VALID_IMAGES, 1),
        device=torch.device("cpu"),
        bf16=False,
        save=lambda state, step: None,
        stopped=lambda: False,
        observer=_observer(job, hyperparameters) if watched else Observer(),
    )
    with closing(session.observer):
        progress = train(session, None)
    return read_series(debugging_folder(prefix)), progress


def debugging_folder(prefix: Path) -> Path:
    """Where the series of a job lies."""
    return read_job(prefix).output_dir / FOLDER


def _observer(job: Job, hyperparameters: Any) -> Observer:
    return build_observer(
        job,
        hyperparameters,
        labels=["dark", "light"],
        facts={"device": "cpu"},
        total_steps=3 * hyperparameters.epochs,
        device=torch.device("cpu"),
    )
