"""What a training works with, how far it is, and what it changes as it goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifact.network import PixelNetwork
from training.averaging import Average
from training.data import ImageSet
from training.distributed import Place, World
from training.features import Features
from training.hyperparameters import Hyperparameters
from training.observer import Observer
from training.shards import EVERYWHERE, Shards


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a job is: everything but the tensors of network and optimizer."""

    epoch: int = 0
    step: int = 0  # within the epoch
    loss_sum: float = 0.0  # over the epoch's images so far
    correct: int = 0
    seen: int = 0
    micro_batch: int = 0  # images at once through the network, once memory ran out; 0 = all
    history: list[dict[str, float]] = field(default_factory=list)  # an entry per finished epoch
    best: dict[str, float] = field(default_factory=dict)  # the history entry whose weights are kept
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the loop works with; `save` writes a checkpoint, `stopped` says that SIGTERM came."""

    network: PixelNetwork
    hyperparameters: Hyperparameters
    train: ImageSet
    valid: ImageSet | None
    device: torch.device
    bf16: bool
    save: Callable[[dict[str, Any], int], None]
    stopped: Callable[[], bool]
    world: World = field(default_factory=lambda: World(Place()))
    observer: Observer = field(default_factory=Observer)
    features: Features | None = None  # of a frozen backbone: then the head alone is run
    shards: Shards = EVERYWHERE  # of `train`, whose pixels are then this host's alone

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return math.ceil(len(self.train) / self.hyperparameters.batch_size)

    def own(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in a batch of the images that this rank works on."""
        return self.shards.own(batch, self.world.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What every step changes, besides the session's network."""

    progress: Progress
    optimizer: torch.optim.Optimizer
    average: Average | None  # of the weights; None without ema_decay
    class_weights: Tensor | None  # (num_classes,), mean 1 over the training images

    def judged(self, session: Session) -> PixelNetwork:
        """The network that is evaluated and exported."""
        return self.average.network if self.average else session.network


def weigh_classes(session: Session) -> Tensor | None:
    """N / (num_classes x images of the class): each class has the same part in an epoch's loss."""
    if session.hyperparameters.class_weights == "none":
        return None
    counts = np.bincount(session.train.folder.targets, minlength=len(session.train.folder.labels))
    weights = len(session.train) / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights).float().to(session.device)
