"""Augmentation of whole batches: one seeded draw per image, computed in a few tensor operations.

Everything comes from the generator, so a resumed job draws what the interrupted one would have drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

AREA = (0.35, 1.0)  # of the picture that a random resized crop keeps (torchvision's references: 0.08)
LOG_ASPECT = (math.log(3 / 4), math.log(4 / 3))
MAX_SHIFT_SHARE = 1 / 16  # of the side, for aerial pictures


@dataclass(frozen=True, slots=True)
class Draws:
    """Random numbers for a share of a batch: the same for an image, however the batch is shared out."""

    generator: torch.Generator
    batch_size: int
    share: slice = field(default_factory=lambda: slice(None))

    def uniform(self, low: float, high: float) -> Tensor:
        """(N,) for the N images of the share."""
        return torch.rand(self.batch_size, generator=self.generator)[self.share] * (high - low) + low

    def integers(self, low: int, high: int, *, rows: int = 1) -> Tensor:
        """(rows, N) from low to high - 1."""
        return torch.randint(low, high, (rows, self.batch_size), generator=self.generator)[:, self.share]


def augment(images: Tensor, augmentation: str, size: int, draws: Draws) -> Tensor:
    """(N, 3, H, W) float32 -> (N, 3, size, size): `none`, `photo` or `aerial` of Hyperparameters."""
    if augmentation == "photo":
        return _resized_crop_and_mirror(images, size, draws)
    if augmentation == "aerial":
        images = _symmetries_and_shift(images, draws)
    return _centre_crop(images, size)


def _resized_crop_and_mirror(images: Tensor, size: int, draws: Draws) -> Tensor:
    """RandomResizedCrop and a mirror in one bilinear sampling."""
    count = len(images)
    area = draws.uniform(*AREA)
    aspect = draws.uniform(*LOG_ASPECT).exp()
    width = (area * aspect).sqrt().clamp(max=1.0)  # share of the full width
    height = (area / aspect).sqrt().clamp(max=1.0)
    centre_x = draws.uniform(-1.0, 1.0) * (1 - width)  # in grid_sample's -1..1
    centre_y = draws.uniform(-1.0, 1.0) * (1 - height)
    mirror = draws.integers(0, 2)[0] * 2 - 1
    zero = torch.zeros(count)
    matrices = torch.stack(
        [torch.stack([width * mirror, zero, centre_x], 1), torch.stack([zero, height, centre_y], 1)], 1
    )  # (N, 2, 3)
    grid = functional.affine_grid(matrices, [count, 3, size, size], align_corners=False)
    return functional.grid_sample(
        images, grid.to(images.device), padding_mode="reflection", align_corners=False
    )


def _symmetries_and_shift(images: Tensor, draws: Draws) -> Tensor:
    """One of the square's 8 symmetries and a shift of a few pixels, by indexing: no pixel is interpolated."""
    count, _, _, side = images.shape
    shift = max(1, int(side * MAX_SHIFT_SHARE))
    index = torch.arange(side)
    shifts = draws.integers(-shift, shift + 1, rows=2)[:, :, None]
    flips = draws.integers(0, 2, rows=2)[:, :, None].bool()
    transpose = draws.integers(0, 2)[0].bool()
    rows, columns = (
        torch.where(flip, side - 1 - index, index).add(offset).abs()
        for flip, offset in zip(flips, shifts, strict=True)
    )
    rows, columns = (torch.where(i >= side, 2 * (side - 1) - i, i) for i in (rows, columns))  # reflect
    picked = images.permute(0, 2, 3, 1)[
        torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)
    return torch.where(transpose.to(images.device)[:, None, None, None], picked.transpose(2, 3), picked)


def _centre_crop(images: Tensor, size: int) -> Tensor:
    top, left = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, top : top + size, left : left + size]
