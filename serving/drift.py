"""How far the last pictures are from those of validation: a sliding window and its stability index.

Plain Python on small integers, so that the HTTP side, which has no numpy, can own it: the processes that
predict send a picture's bins (`artifact.baseline.find_bins`) along with its answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

WINDOW_PICTURES = 1000
MIN_PICTURES = 200  # fewer say nothing; with them an unshifted index stays under 0.2, with 1000 under 0.1
MIN_BASELINE = 100  # validation images, likewise
ALERT_PSI = 0.25  # "significant shift": Siddiqi, Credit Risk Scorecards (2006); 0.1 to 0.25 is "some"
PSEUDO_COUNT = 0.5  # Jeffreys' prior, per bin: an empty bin would make the index infinite

Bins = tuple[int, ...]  # per signal of the baseline, in its order; negative where it was not measured


class DriftWindow:
    """The bins of the last `size` pictures, counted."""

    def __init__(self, baseline_counts: Mapping[str, Sequence[int]], *, size: int = WINDOW_PICTURES) -> None:
        self.counts: dict[str, list[int]] = {
            signal: [0] * len(counts) for signal, counts in baseline_counts.items()
        }
        self._pictures: deque[Bins] = deque()
        self._size = size

    def add(self, pictures: Iterable[Bins]) -> set[tuple[str, int]]:
        """Count these and forget the oldest beyond the window's size; the signals and bins that changed."""
        changed: set[tuple[str, int]] = set()
        for bins in pictures:
            self._pictures.append(bins)
            changed |= self._count(bins, 1)
            if len(self._pictures) > self._size:
                changed |= self._count(self._pictures.popleft(), -1)
        return changed

    def _count(self, bins: Bins, change: int) -> set[tuple[str, int]]:
        known = {(signal, chosen) for signal, chosen in zip(self.counts, bins, strict=True) if chosen >= 0}
        for signal, chosen in known:
            self.counts[signal][chosen] += change
        return known


def psi(expected: Sequence[int], observed: Sequence[int]) -> float:
    """Population stability index of two histograms over the same bins, less what chance alone adds; >= 0.

    sum((q - p) ln(q / p)) over the shares p of `expected` and q of `observed`. Of samples of m and n from one
    population it is about (1/m + 1/n) times chi-squared with (bins - 1) degrees of freedom (Yurdakul,
    Statistical Properties of Population Stability Index, 2018): the mean of that is subtracted.
    """
    bins, m, n = len(expected), sum(expected), sum(observed)
    if bins < 2 or not m or not n:
        return 0.0
    shares = [
        ((e + PSEUDO_COUNT) / (m + PSEUDO_COUNT * bins), (o + PSEUDO_COUNT) / (n + PSEUDO_COUNT * bins))
        for e, o in zip(expected, observed, strict=True)
    ]
    index = sum((q - p) * math.log(q / p) for p, q in shares)
    return max(0.0, index - (bins - 1) * (1 / m + 1 / n))


def stability(
    baseline_counts: Mapping[str, Sequence[int]], window_counts: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Signal -> PSI, of signals with at least MIN_PICTURES in the window and MIN_BASELINE in the baseline.

    Windows of several processes are compared as one by adding their counts up first.
    """
    whole = {signal: [round(count) for count in counts] for signal, counts in window_counts.items()}
    return {
        signal: psi(expected, whole[signal])
        for signal, expected in baseline_counts.items()
        if sum(whole.get(signal, ())) >= MIN_PICTURES and sum(expected) >= MIN_BASELINE
    }


def has_drifted(indices: Mapping[str, float], *, threshold: float = ALERT_PSI) -> bool:
    """Whether any signal is over the threshold."""
    return any(index > threshold for index in indices.values())
