"""What it would gain to answer only where the confidence is high: accuracy against coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.proportions import proportion

NUM_POINTS = 100
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
WANTED_ACCURACIES = (0.9, 0.95, 0.99)
LEAST_ANSWERS = 20  # fewer prove nothing: the surest three are right by luck


def measure_abstaining(is_correct: NDArray[np.bool_], confidences: NDArray[np.float64]) -> dict[str, Any]:
    """The curve, some of its points with intervals, and the thresholds that reach wanted accuracies.

    An answer counts where its confidence is at least the threshold, so equal confidences stay together.
    """
    order = np.argsort(-confidences, kind="stable")
    confidences, hits = confidences[order], np.cumsum(is_correct[order])
    answered = np.arange(1, len(order) + 1)
    is_threshold = np.append(confidences[:-1] != confidences[1:], True) if len(order) else np.zeros(0, bool)
    confidences, hits, answered = confidences[is_threshold], hits[is_threshold], answered[is_threshold]
    count = len(order)
    points = np.unique(np.linspace(0, len(answered) - 1, NUM_POINTS).round().astype(int)) if count else []
    return {
        "curve": [_point(confidences, hits, answered, count, int(place)) for place in points],
        "coverages": [
            _point(confidences, hits, answered, count, int(np.searchsorted(answered, coverage * count)))
            for coverage in COVERAGES
            if count
        ],
        "wanted": [_reach(confidences, hits, answered, count, accuracy) for accuracy in WANTED_ACCURACIES],
    }


def _point(
    confidences: NDArray[np.float64],
    hits: NDArray[np.int64],
    answered: NDArray[np.int64],
    count: int,
    place: int,
) -> dict[str, Any]:
    place = min(place, len(answered) - 1)
    return {
        "threshold": float(confidences[place]),
        "coverage": float(answered[place]) / count,
        "accuracy": proportion(int(hits[place]), int(answered[place])),
    }


def _reach(
    confidences: NDArray[np.float64],
    hits: NDArray[np.int64],
    answered: NDArray[np.int64],
    count: int,
    wanted: float,
) -> dict[str, Any]:
    """The largest share that can be answered with at least that accuracy; nothing where too few can."""
    places = np.flatnonzero((hits >= wanted * answered) & (answered >= LEAST_ANSWERS))
    if not len(places):
        return {"wanted": wanted, "threshold": None, "coverage": 0.0, "accuracy": proportion(0, 0)}
    return {"wanted": wanted, **_point(confidences, hits, answered, count, int(places[-1]))}
