"""A training that waits for its data is told so, with the share of the step; following the advice ends it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training.data
from artifact.network import PixelNetwork
from artifact.preprocess import Preprocess
from tests.watched_training import debugging_folder, small_network
from training.data import ImageSet, decode_images, describe_pixels, read_image_folder
from training.debugging.observers import build_observer
from training.debugging.rules import RuleSettings, Verdict, evaluate
from training.debugging.series import read_series
from training.hyperparameters import parse_hyperparameters
from training.job import read_job
from training.loop import Session, train

# Beside a network this small even the quickest loader takes a fifth of the step.
RULE = RuleSettings(name="DataWait", parameters={"threshold": "50"})
SECONDS_PER_IMAGE = 0.02  # of a file on a disk far away
SETTINGS = {
    "batch_size": "16", "epochs": "2", "precision": "fp32", "augmentation": "none", "debug_rules": "DataWait",
    "profile_steps": "0", "profile_interval_ms": "0",
}  # fmt: skip


class SlowFile(np.memmap[Any, Any]):
    """A mapped file whose disk is slow to answer."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer, np.ndarray)):
            time.sleep(SECONDS_PER_IMAGE * np.size(index))
        return np.asarray(super().__getitem__(index))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the shapes at about 40 pixels."""
    monkeypatch.setattr(training.data, "_free_memory_bytes", lambda: 2 * 64 * 40 * 40 * 3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A network this small only loses by sharing its work out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train_at(image_size: int, shapes: Path, prefix: Path) -> tuple[Verdict, ImageSet]:
    """What DataWait makes of a training on the shapes, decoded as a job decodes them."""
    hyperparameters = parse_hyperparameters(SETTINGS | {"image_size": str(image_size)})
    side = hyperparameters.resize_side
    images = decode_images(
        read_image_folder(shapes / "train"), Preprocess(resize=side, crop=side), max_unreadable=0.0
    )
    if isinstance(images.pixels, np.memmap):
        images = replace(images, pixels=images.pixels.view(SlowFile))
    torch.manual_seed(0)
    network = small_network()
    network[-1] = torch.nn.Linear(8, len(images.folder.labels))
    session = Session(
        network=PixelNetwork(network, Preprocess(resize=side, crop=image_size)),
        hyperparameters=hyperparameters,
        train=images,
        valid=None,
        device=torch.device("cpu"),
        bf16=False,
        save=lambda state, step: None,
        stopped=lambda: False,
        observer=build_observer(
            read_job(prefix),
            hyperparameters,
            labels=images.folder.labels,
            facts={"device": "cpu", "image_size": image_size, **describe_pixels(images)},
            total_steps=8,
            device=torch.device("cpu"),
        ),
    )
    with closing(session.observer):
        train(session, None)
    return evaluate(read_series(debugging_folder(prefix)), [RULE])[0], images


@pytest.mark.usefixtures("little_memory", "one_thread")
def test_following_the_advice_removes_the_finding(shapes: Path, tmp_path: Path) -> None:
    slow, images = train_at(64, shapes, tmp_path / "slow")

    assert isinstance(images.pixels, SlowFile)
    assert slow.fired, slow.summary
    share = re.match(r"Data wait is (\d+) % of the step: [\d ]+ of [\d ]+ ms", slow.summary)
    assert share and int(share[1]) > 50
    advised = re.search(r"set image_size=(\d+) and resize=0 \(now image_size=64\)", slow.advice)
    assert advised, slow.advice
    assert re.search(r"Without the wait a step is [\d.]+ times as fast\.", slow.advice)

    quick, images = train_at(int(advised[1]), shapes, tmp_path / "quick")

    assert not isinstance(images.pixels, np.memmap)
    assert quick.status == "NoIssuesFound", quick.summary
