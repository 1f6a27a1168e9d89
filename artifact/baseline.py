"""What validation images looked like to the server: histograms that live traffic is later compared with.

Measured on the pixels the network gets (`artifact.preprocess`) and on its answers, so that trainer and server
mean the same numbers. Signals:

    confidence      probability of the likeliest label
    predicted       the likeliest label, labels put into at most MAX_GROUPS groups of about equal share
    brightness      mean of the pixels, 0-255
    blur            ln(1 + variance of the Laplacian) of the green channel; low is blurred (Pech-Pacheco
                    et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000)
    shorter_side    of the picture as sent, in pixels, log2
    aspect          longer / shorter side of it, log2; both only where the sizes are known
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNALS = ("confidence", "predicted", "brightness", "blur", "shorter_side", "aspect")
MAX_GROUPS = 10  # of labels: with more, the index of a few hundred pictures is mostly chance
DECILES = np.arange(0.1, 0.95, 0.1)
# A network that is nearly always sure has nearly one value in all deciles: these keep the doubtful apart.
CONFIDENCE_EDGES = {0.5, 0.9}
SAMPLED_ROWS = 56  # at least, of pictures that have so many: on woof blur is then off by 5 % of its spread
UNKNOWN = -1  # bin of a signal that was not measured

Sizes = Sequence[tuple[int, int]]  # width, height in pixels of the pictures as sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many validation images fell between the edges; the first and the last bin are open."""

    edges: tuple[float, ...]  # ascending, len(counts) - 1
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A histogram per signal, in SIGNALS' order, and the group of every target."""

    label_groups: tuple[int, ...]  # (num_classes,)
    histograms: dict[str, Histogram]

    def counts(self) -> dict[str, tuple[int, ...]]:
        """What comparing needs: signal -> images per bin."""
        return {signal: histogram.counts for signal, histogram in self.histograms.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], *, num_classes: int) -> Baseline:
        """As in the manifest, unknown signals left out. Raises KeyError, TypeError or ValueError."""
        label_groups = tuple(int(group) for group in stored["label_groups"])
        if len(label_groups) != num_classes:
            raise ValueError(f"baseline has {len(label_groups)} label_groups for {num_classes} labels")
        histograms = {
            signal: Histogram(
                edges=tuple(float(edge) for edge in stored["histograms"][signal]["edges"]),
                counts=tuple(int(count) for count in stored["histograms"][signal]["counts"]),
            )
            for signal in SIGNALS
            if signal in stored["histograms"]
        }
        for signal, histogram in histograms.items():
            if len(histogram.counts) != len(histogram.edges) + 1 or list(histogram.edges) != sorted(
                histogram.edges
            ):
                raise ValueError(f"baseline {signal}: edges and counts do not fit")
        return cls(label_groups=label_groups, histograms=histograms)


def build_baseline(
    pixels: NDArray[np.uint8], log_probabilities: NDArray[np.floating[Any]], sizes: Sizes | None = None
) -> Baseline:
    """(N, H, W, 3) uint8 RGB, (N, num_classes): bins of about a tenth of the images each."""
    groups = group_labels(np.bincount(log_probabilities.argmax(axis=1), minlength=log_probabilities.shape[1]))
    rows = [
        measure(image, row, groups, sizes[index] if sizes else None)
        for index, (image, row) in enumerate(zip(pixels, log_probabilities, strict=True))
    ]
    histograms = {}
    for signal in (signal for signal in SIGNALS if signal in rows[0]):
        values = np.array([row[signal] for row in rows])
        edges = _choose_edges(signal, values, max(groups) + 1)
        bins = np.searchsorted(edges, values, side="right")
        counts = np.bincount(bins, minlength=len(edges) + 1)
        histograms[signal] = Histogram(edges=edges, counts=tuple(int(count) for count in counts))
    return Baseline(label_groups=groups, histograms=histograms)


def group_labels(counts: NDArray[np.integer[Any]]) -> tuple[int, ...]:
    """Images per target -> group per target: the largest first, each into the group that has least so far."""
    groups = [0] * len(counts)
    filled = [(0, 0)] * min(MAX_GROUPS, len(counts))  # images, labels
    for target in np.argsort(-counts, kind="stable"):
        smallest = filled.index(min(filled))
        groups[target] = smallest
        filled[smallest] = (filled[smallest][0] + int(counts[target]), filled[smallest][1] + 1)
    return tuple(groups)


def measure(
    pixels: NDArray[np.uint8],
    log_probabilities: NDArray[np.floating[Any]],
    label_groups: Sequence[int],
    size: tuple[int, int] | None = None,
) -> dict[str, float]:
    """One image's signals: pixels (H, W, 3) uint8 RGB, log_probabilities (num_classes,), size as sent."""
    predicted = int(log_probabilities.argmax())
    signals = {
        "confidence": float(np.exp(log_probabilities[predicted])),
        "predicted": float(label_groups[predicted]),
        "brightness": mean_brightness(pixels),
        "blur": float(np.log1p(laplacian_variance(pixels[:, :, 1]))),
    }
    if size is not None:
        shorter, longer = sorted(size)
        signals |= {
            "shorter_side": float(np.log2(shorter)),
            "aspect": float(np.log2(longer / shorter)),
        }
    return signals


def mean_brightness(pixels: NDArray[np.uint8]) -> float:
    """(H, W, 3): the mean of every second pixel each way, of every fourth from 224 rows on, and so forth.

    Whole rows are added up first, since neighbours in memory cost least.
    """
    step = _step(pixels)
    columns = pixels[::step].sum(axis=0, dtype=np.uint32)[::step]
    return float(columns.sum()) / int(columns.size * len(pixels[::step]))


def laplacian_variance(channel: NDArray[np.uint8]) -> float:
    """(H, W) uint8: variance of the 4-neighbour Laplacian inside the border; 0 for less than 3 x 3.

    Of some rows only, as with brightness.
    """
    if min(channel.shape) < 3:
        return 0.0
    step = _step(channel)
    above = channel[:-2:step].astype(np.int16)  # the Laplacian lies in -1020..1020
    rows = channel[1:-1:step].astype(np.int16)
    below = channel[2::step].astype(np.int16)
    laplacian = rows[:, :-2] + rows[:, 2:]
    laplacian += above[:, 1:-1]
    laplacian += below[:, 1:-1]
    laplacian -= 4 * rows[:, 1:-1]
    flat = laplacian.astype(
        np.float32
    ).ravel()  # dot products in float32 are off by far less than a bin's width
    return float(np.vdot(flat, flat)) / flat.size - float(flat.mean()) ** 2


def _step(picture: NDArray[np.uint8]) -> int:
    """From one row that is measured to the next."""
    return max(2, len(picture) // SAMPLED_ROWS)


def read_size(body: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture as stored, from its header. Raises as Image.open does."""
    with Image.open(io.BytesIO(body)) as image:
        return image.size


def find_bins(baseline: Baseline, signals: Mapping[str, float]) -> tuple[int, ...]:
    """The bin of each of the baseline's signals, in its order; UNKNOWN where it was not measured."""
    return tuple(
        bisect_right(histogram.edges, signals[name]) if name in signals else UNKNOWN
        for name, histogram in baseline.histograms.items()
    )


def _choose_edges(signal: str, values: NDArray[np.float64], num_groups: int) -> tuple[float, ...]:
    if signal == "predicted":
        return tuple(group + 0.5 for group in range(num_groups - 1))
    if signal == "confidence":
        # To hundredths: what int8 moves an answer of fp32 by is arithmetic, not another kind of picture.
        hundredths = {round(float(edge), 2) for edge in np.quantile(values, DECILES)}
        return tuple(sorted(edge for edge in hundredths | CONFIDENCE_EDGES if edge < 1.0))
    deciles = {round(float(edge), 3) for edge in np.quantile(values, DECILES)}
    # Outer bins for what validation never had; the only ones where all its images are alike, say in size.
    outside = {math.floor(1000 * values.min()) / 1000, math.ceil(1000 * values.max()) / 1000 + 0.001}
    return tuple(sorted(deciles | outside))
