"""What the training's pictures look like, in numbers: how unlike them is this one?

Eighteen statistics of the pixels the network gets (`FEATURES`) and their Gaussian over the validation split;
a picture's distance from it is Mahalanobis's. The network is not asked: on a network that never saw anything
else, its own confidence and energy hardly tell a dog from a satellite tile (docs/decisions.md). What looks
alike is not told apart: a cat among dogs passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALES = 4  # each of half the side: 16 pixels, the least image_size, leave 2
FEATURES = 10 + 2 * SCALES
LEAST_IMAGES = 3 * FEATURES  # fewer do not fix a covariance
RIDGE = 1e-4
STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The Gaussian, and how far the validation images lie from its middle."""

    mean: tuple[float, ...]  # (FEATURES,)
    inverse: tuple[tuple[float, ...], ...]  # (FEATURES, FEATURES), of the covariance
    quantiles: tuple[float, ...]  # ascending squared distances: the 0th, 1st ... 100th percentile

    def rarity(self, pixels: NDArray[np.uint8]) -> float:
        """(H, W, 3) RGB -> 0 to 1: the share of the validation images that are more usual than this one."""
        offset = measure_looks(pixels) - np.array(self.mean)
        distance = float(offset @ np.array(self.inverse) @ offset)
        return float(np.interp(distance, self.quantiles, np.linspace(0.0, 1.0, len(self.quantiles))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Looks:
        """As in the manifest. Raises KeyError, TypeError or ValueError."""
        looks = cls(
            mean=tuple(float(value) for value in stored["mean"]),
            inverse=tuple(tuple(float(value) for value in row) for row in stored["inverse"]),
            quantiles=tuple(float(value) for value in stored["quantiles"]),
        )
        if {len(looks.mean), len(looks.inverse), *map(len, looks.inverse)} != {FEATURES}:
            raise ValueError(f"looks are not of {FEATURES} features")
        if not looks.quantiles or list(looks.quantiles) != sorted(looks.quantiles):
            raise ValueError("the quantiles of looks do not ascend")
        return looks


def build_looks(pixels: NDArray[np.uint8]) -> Looks | None:
    """(N, H, W, 3) RGB; None where N is less than LEAST_IMAGES."""
    if len(pixels) < LEAST_IMAGES:
        return None
    rows = np.stack([measure_looks(image) for image in pixels])
    mean = rows.mean(axis=0)
    inverse = np.linalg.inv(np.cov(rows.T) + RIDGE * np.eye(FEATURES))
    distances = np.einsum("ij,jk,ik->i", rows - mean, inverse, rows - mean)
    return Looks(
        mean=tuple(mean.tolist()),
        inverse=tuple(tuple(row) for row in inverse.tolist()),
        quantiles=tuple(np.quantile(distances, np.linspace(0.0, 1.0, STEPS + 1)).tolist()),
    )


def measure_looks(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) RGB -> (FEATURES,): colours' means and spreads, colourfulness, and edges at four scales."""
    # A plane each: numpy reduces three neighbours a pixel several times slower.
    red, green, blue = planes = np.moveaxis(pixels, 2, 0).astype(np.float32, order="C") / np.float32(255)
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    tints = [np.abs(red - green).mean(), np.abs(green - blue).mean()]
    spreads = planes.std(axis=(1, 2))
    colours = _log(np.array([*spreads, saturation.mean(), saturation.std(), *tints]), 0.01)
    edges = []
    grey = planes.mean(axis=0)
    for _ in range(SCALES):
        edges += [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
        height, width = (side // 2 for side in grey.shape)
        quarters = grey[: 2 * height, : 2 * width]
        grey = (quarters[::2, ::2] + quarters[1::2, ::2] + quarters[::2, 1::2] + quarters[1::2, 1::2]) / 4
    return np.concatenate([planes.mean(axis=(1, 2)), colours, _log(np.array(edges), 0.001)])


def _log(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Logarithms, so that half and double are equally far; `least` keeps flat pictures finite."""
    return np.asarray(np.log(values + least), dtype=np.float64)
