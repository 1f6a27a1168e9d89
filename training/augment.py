"""Augmentation on uint8 pictures, before they become floats: Pillow resamples outside the GIL, on all cores.

What is drawn for a picture follows from (seed, epoch, picture) alone: the same in whatever batch it comes,
on whichever rank, and after a resume.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.cores import available_cores

AREA = (0.35, 1.0)  # of the picture that a random resized crop keeps (torchvision's references: 0.08)
LOG_ASPECT = (math.log(3 / 4), math.log(4 / 3))
MAX_SHIFT_SHARE = 1 / 16  # of the side, for aerial pictures

Pixels = NDArray[np.uint8]
OnePicture = Callable[[Pixels, int], Pixels]  # (H, W, 3) and its place among the draws -> (size, size, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Random numbers for some pictures of an epoch. `which` tells one draw of a picture from another."""

    seed: int
    epoch: int
    images: NDArray[np.int64]  # (N,), their numbers in the training split

    def uniform(self, which: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """(N,) from low up to high."""
        key = np.random.SeedSequence([self.seed, self.epoch, which]).generate_state(1, np.uint64)
        bits = _scramble(_scramble(self.images.astype(np.uint64)) + key)
        fractions = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return fractions * (high - low) + low

    def integers(self, which: int, low: int, high: int) -> NDArray[np.int64]:
        """(N,) from low to high - 1."""
        return np.floor(self.uniform(which, low, high)).astype(np.int64)


def augment(pixels: Pixels, augmentation: str, size: int, draws: Draws, *, first: int = 0) -> Pixels:
    """The drawn pictures of (num_images, H, W, 3) as (N, size, size, 3): `none`, `photo` or `aerial`.

    `first` is the number of the picture that comes first in `pixels`.
    """
    one = _AUGMENTATIONS[augmentation](pixels.shape[1], size, draws)
    augmented = np.empty((len(draws.images), size, size, 3), dtype=np.uint8)

    def fill(place: int) -> None:
        augmented[place] = one(pixels[draws.images[place] - first], place)

    list(_pool().map(fill, range(len(augmented))))
    return augmented


def _photo(side: int, size: int, draws: Draws) -> OnePicture:
    """RandomResizedCrop, antialiased as everywhere in Kennel, and a mirror."""
    area, aspect = draws.uniform(0, *AREA), np.exp(draws.uniform(1, *LOG_ASPECT))
    width = np.minimum(np.sqrt(area * aspect), 1.0) * side
    height = np.minimum(np.sqrt(area / aspect), 1.0) * side
    left, top = draws.uniform(2) * (side - width), draws.uniform(3) * (side - height)
    mirror = draws.integers(4, 0, 2)
    boxes = np.stack([left, top, left + width, top + height], axis=1).clip(0, side)

    def one(picture: Pixels, place: int) -> Pixels:
        image = Image.fromarray(picture)
        resized = image.resize((size, size), Image.Resampling.BILINEAR, box=tuple(boxes[place]))
        return np.asarray(resized)[:, :: -1 if mirror[place] else 1]

    return one


def _aerial(side: int, size: int, draws: Draws) -> OnePicture:
    """One of the square's 8 symmetries and a shift of a few pixels, reflected at the border."""
    shift = max(1, int(side * MAX_SHIFT_SHARE))
    flips = np.stack([draws.integers(which, 0, 2) for which in (0, 1)])[:, :, None]
    shifts = np.stack([draws.integers(which, -shift, shift + 1) for which in (2, 3)])[:, :, None]
    transpose = draws.integers(4, 0, 2)
    index = np.abs(np.where(flips, side - 1 - np.arange(side), np.arange(side)) + shifts)  # (2, N, side)
    rows, columns = np.where(index >= side, 2 * (side - 1) - index, index)

    def one(picture: Pixels, place: int) -> Pixels:
        picked = picture.take(rows[place], axis=0).take(columns[place], axis=1)
        return _centre_crop(picked.transpose(1, 0, 2) if transpose[place] else picked, size)

    return one


def _none(side: int, size: int, draws: Draws) -> OnePicture:
    return lambda picture, place: _centre_crop(picture, size)


_AUGMENTATIONS = {"none": _none, "photo": _photo, "aerial": _aerial}


def _centre_crop(picture: Pixels, size: int) -> Pixels:
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return picture[top : top + size, left : left + size]


def _scramble(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="augment")
