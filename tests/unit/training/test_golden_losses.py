"""The losses of the first steps are those on file: a change in numerics fails here.

KENNEL_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/unit/training/test_golden_losses.py writes the file,
for a change that is meant to change them. Processors differ in the last bits, hence the tolerance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.hyperparameters import Hyperparameters
from training.loop import Session, train
from training.network import freeze_backbone
from training.observer import Observer, StepFacts

GOLDEN = Path(__file__).parent / "golden_losses.json"
RELATIVE_TOLERANCE = 1e-4
COUNT, SIDE, NUM_CLASSES = 32, 36, 4
SETTINGS: dict[str, Any] = {
    "architecture": "cnn", "image_size": 32, "resize": SIDE, "batch_size": 8, "epochs": 2,
    "learning_rate": 0.02, "precision": "fp32", "augmentation": "none",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3},
    "label smoothing": {"label_smoothing": 0.1},
    "photo": {"augmentation": "photo"},
    "aerial": {"augmentation": "aerial"},
    "dropout": {"dropout": 0.5},
    "constant without warm-up": {"schedule": "constant", "warmup_epochs": 0.0},
    "frozen resnet18": {"architecture": "resnet18", "freeze_backbone": True},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The machine's other load must not change how work is split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _images() -> ImageSet:
    """Coloured noise, brighter by class."""
    random = np.random.default_rng(11)
    targets = np.arange(COUNT) % NUM_CLASSES
    pixels = random.integers(0, 150, (COUNT, SIDE, SIDE, 3)) + 30 * targets[:, None, None, None]
    return ImageSet(
        folder=ImageFolder(
            root=Path("none"),
            labels=tuple("abcd"),
            paths=tuple(f"{index}.png" for index in range(COUNT)),
            targets=targets.astype(np.int64),
        ),
        pixels=pixels.astype(np.uint8),
        fingerprint="",
        unreadable=(),
    )


class Losses(Observer):
    """Of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def step_ends(self, facts: StepFacts) -> None:
        self.values.append(facts.loss)


def _losses(**changes: Any) -> list[float]:
    hyperparameters = Hyperparameters(**(SETTINGS | changes))
    torch.manual_seed(hyperparameters.seed)
    network = build_network(hyperparameters.architecture, NUM_CLASSES, dropout=hyperparameters.dropout)
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    losses = Losses()
    session = Session(
        network=PixelNetwork(network, Preprocess(resize=SIDE, crop=32)),
        hyperparameters=hyperparameters,
        train=_images(),
        valid=None,
        device=torch.device("cpu"),
        bf16=False,
        save=lambda state, step: None,
        stopped=lambda: False,
        observer=losses,
    )
    train(session, None)
    return losses.values


def test_golden_file_is_of_these_cases() -> None:
    if "KENNEL_WRITE_GOLDEN" in os.environ:
        losses = {name: _losses(**changes) for name, changes in CASES.items()}
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")

    golden = json.loads(GOLDEN.read_text())

    assert list(golden) == list(CASES)
    assert {len(losses) for losses in golden.values()} == {2 * COUNT // 8}


@pytest.mark.parametrize("name", CASES)
def test_loss_curve_is_the_golden_one(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]

    assert _losses(**CASES[name]) == pytest.approx(golden, rel=RELATIVE_TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"momentum": 0.89}, id="momentum"),
        pytest.param({"weight_decay": 0.01}, id="weight decay"),
        pytest.param({"learning_rate": 0.0201}, id="learning rate"),
        pytest.param({"label_smoothing": 0.001}, id="label smoothing"),
        pytest.param({"seed": 1}, id="seed"),
    ],
)
def test_small_change_of_numerics_is_seen(changes: dict[str, Any]) -> None:
    golden = json.loads(GOLDEN.read_text())["sgd"]

    assert _losses(**changes) != pytest.approx(golden, rel=RELATIVE_TOLERANCE)
