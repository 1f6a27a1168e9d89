"""The validation split -> temperature and risk curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.calibration import Calibration, scale

LOG_TEMPERATURES = (-3.0, 3.0)  # beyond a factor of 20 nothing was learnt, or nothing is left to learn
LEAST_IMAGES = 50  # fewer say more of chance than of the network
MAX_POINTS = 100


def build_calibration(
    log_probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> Calibration | None:
    """(N, num_classes), (N,); None where N is less than LEAST_IMAGES."""
    if len(targets) < LEAST_IMAGES:
        return None
    temperature = fit_temperature(log_probabilities, targets)
    calibrated = scale(log_probabilities, temperature)
    is_wrong = calibrated.argmax(axis=1) != targets
    return Calibration(temperature=temperature, curve=build_curve(np.exp(calibrated.max(axis=1)), is_wrong))


def fit_temperature(log_probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """The one that makes the targets likeliest (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar  # slow to import, and few processes need it

    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return float(-scale(log_probabilities, np.exp(log_temperature))[rows, targets].mean())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def build_curve(
    confidences: NDArray[np.float64], is_wrong: NDArray[np.bool_]
) -> tuple[tuple[float, float], ...]:
    """(confidence, risk) from all answers to few, only where the risk is less than at any lower confidence.

    The risk is (errors + 1) / (answers + 1): the next answer counts as wrong, as in conformal risk control
    (Angelopoulos et al. 2022, https://arxiv.org/abs/2208.02814), so that few answers promise little.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences = confidences[order]
    answers = np.arange(1, len(order) + 1)
    risks = (np.cumsum(is_wrong[order]) + 1) / (answers + 1)
    is_threshold = np.append(sorted_confidences[:-1] != sorted_confidences[1:], True)
    points: list[tuple[float, float]] = []
    for confidence, risk in zip(
        sorted_confidences[is_threshold][::-1], risks[is_threshold][::-1], strict=True
    ):
        if not points or risk < points[-1][1]:
            points.append((float(confidence), float(risk)))
    if len(points) <= MAX_POINTS:
        return tuple(points)
    kept = np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)
    return tuple(points[place] for place in kept)
