"""What may watch the training loop. This one does nothing; `training.debugging` has the one that records."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFacts:
    """A step whose loss is known."""

    step: int  # of the job, from 0
    epoch: int  # from 0
    loss: float  # mean over the batch, all ranks
    images: int
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts(LossFacts):
    """One finished optimizer step."""

    correct: int
    # Of this rank's share, or of its last part where memory is short (micro_batch).
    inputs: Tensor  # (n, 3, H, W) normalised and augmented, or (n, width): kept features of a frozen backbone
    logits: Tensor  # (n, num_classes), detached
    targets: Tensor  # (n,)


class Observer:
    """Called by the loop, on every rank, in the order of a step. Raising JobError ends the job."""

    def watch(self, network: nn.Module) -> None:
        """Before the first step: the network whose layers are trained."""

    def step_starts(self, step: int) -> None:
        """Before anything of optimizer step `step`."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Around a part, maybe one of several: data, transfer, augment, forward, backward, optimizer.

        Between steps: evaluation, checkpoint.
        """
        return nullcontext()

    def loss_ready(self, facts: LossFacts) -> None:
        """Before the backward pass. If the loss is not finite the loop raises next."""

    def gradients_ready(self, step: int) -> None:
        """After the backward pass (and the ranks' merging), before the optimizer changes the weights."""

    def step_ends(self, facts: StepFacts) -> None:
        """After the optimizer."""

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        """After a pass over the validation split: (num_images, num_classes) and (num_images,)."""

    def close(self) -> None:
        """The training is over, or has failed."""
