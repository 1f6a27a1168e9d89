"""Small training sessions on made-up pictures, for the tests of the loop and its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.hyperparameters import Hyperparameters
from training.loop import use_bf16
from training.network import freeze_backbone
from training.session import Session

SIDE = 32
SETTINGS: dict[str, Any] = {
    "architecture": "cnn", "image_size": SIDE, "resize": SIDE, "batch_size": 8, "epochs": 3,
    "learning_rate": 0.02, "precision": "fp32",
}  # fmt: skip


def make_images(count: int, seed: int, side: int = SIDE) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, side, side, 3)) + 100 * targets[:, None, None, None]
    folder = ImageFolder(
        root=Path("none"),
        labels=("dark", "light"),
        paths=tuple(f"{index}.png" for index in range(count)),
        targets=targets.astype(np.int64),
    )
    return ImageSet(
        folder=folder, pixels=pixels.astype(np.uint8), fingerprint=f"{count} {seed}", unreadable=()
    )


def make_session(
    *,
    save: Callable[[dict[str, Any], int], None] = lambda state, step: None,
    stopped: Callable[[], bool] = lambda: False,
    valid: bool = True,
    **changes: Any,
) -> Session:
    hyperparameters = Hyperparameters(**(SETTINGS | changes))
    resize, size = hyperparameters.resize_side, hyperparameters.image_size
    torch.manual_seed(hyperparameters.seed)
    network = build_network(
        hyperparameters.architecture,
        2,
        head_hidden=hyperparameters.head_hidden,
        dropout=hyperparameters.dropout,
    )
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    return Session(
        network=PixelNetwork(network, Preprocess(resize=resize, crop=size)),
        hyperparameters=hyperparameters,
        train=make_images(44, 0, resize),
        valid=make_images(20, 1, size) if valid else None,
        device=torch.device("cpu"),
        bf16=use_bf16(hyperparameters.precision, torch.device("cpu")),
        save=save,
        stopped=stopped,
    )


def weights_of(session: Session) -> dict[str, torch.Tensor]:
    return session.network.network.state_dict()


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The machine's other load must not change how work is split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
