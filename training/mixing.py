"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each picture of a batch with the one before it.

Partners and shares follow from (seed, epoch, step) and the whole batch, not from how it is shared out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.hyperparameters import Hyperparameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How a step's pictures are mixed: `share` of each one's own, the rest of its partner's."""

    share: float
    box: tuple[float, float, float, float] | None  # CutMix: left, top, right, bottom in shares of the side

    def apply(self, images: Tensor, partners: Tensor) -> Tensor:
        """(N, C, H, W) each -> (N, C, H, W); a box is cut at whole pixels."""
        if self.box is None:
            return images.mul_(self.share).add_(partners, alpha=1.0 - self.share)
        height, width = images.shape[2:]
        left, right = (round(edge * width) for edge in self.box[::2])
        top, bottom = (round(edge * height) for edge in self.box[1::2])
        images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return images


def partners_of(batch: NDArray[np.int64]) -> NDArray[np.int64]:
    """The picture before, in the shuffled batch; the first one's is the last."""
    return np.roll(batch, 1)


def draw_mix(hyperparameters: Hyperparameters, epoch: int, step: int) -> Mix | None:
    """None where neither is on; with both on, each has every second step in the mean."""
    mixup, cutmix = hyperparameters.mixup, hyperparameters.cutmix
    if not mixup and not cutmix:
        return None
    random = np.random.default_rng([hyperparameters.seed, epoch, step, 1])
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    share = float(random.beta(cutmix, cutmix) if cuts else random.beta(mixup, mixup))
    if not cuts:
        return Mix(share=share, box=None)
    half = np.sqrt(1.0 - share) / 2  # of the box's side
    x, y = random.random(2)
    left, top, right, bottom = np.clip([x - half, y - half, x + half, y + half], 0.0, 1.0).tolist()
    # At the border the box loses a part, so the share is counted again.
    return Mix(share=1.0 - (right - left) * (bottom - top), box=(left, top, right, bottom))
