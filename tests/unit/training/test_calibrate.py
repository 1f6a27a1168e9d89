"""The temperature is found again, and the risk curve promises no more than was seen."""

from __future__ import annotations

import numpy as np
import pytest

from artifact.predictions import log_softmax
from training.calibrate import LEAST_IMAGES, MAX_POINTS, build_calibration, build_curve, fit_temperature


def draw(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Logits, and targets drawn with exactly the probabilities that they state."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(count, 4))
    probabilities = np.exp(log_softmax(logits))
    return logits, (probabilities.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_was_put_in(factor: float) -> None:
    logits, targets = draw(4000, seed=0)

    assert fit_temperature(log_softmax(factor * logits), targets) == pytest.approx(factor, rel=0.08)


def test_calibration_changes_no_label() -> None:
    logits, targets = draw(200, seed=1)

    calibration = build_calibration(log_softmax(logits), targets)

    assert calibration is not None
    calibrated = calibration.calibrate(log_softmax(logits))
    assert (calibrated.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_few_images_are_no_calibration() -> None:
    logits, targets = draw(LEAST_IMAGES - 1, seed=2)

    assert build_calibration(log_softmax(logits), targets) is None


def test_curve_counts_one_more_wrong_answer() -> None:
    confidences = np.array([0.9, 0.8, 0.7, 0.6])
    is_wrong = np.array([False, False, True, False])

    # All four: 2 of 5. The surest two: 1 of 3. The surest alone would be 1 of 2, worse than all.
    assert build_curve(confidences, is_wrong) == ((0.6, 2 / 5), (0.8, 1 / 3))


def test_equal_confidences_stay_together() -> None:
    curve = build_curve(np.array([0.9, 0.9, 0.5]), np.array([False, True, False]))

    assert curve == ((0.5, 2 / 4),)


def test_curve_is_short_ascends_and_its_risks_hold_on_other_images() -> None:
    logits, targets = draw(3000, seed=3)
    calibration = build_calibration(log_softmax(logits), targets)
    assert calibration is not None
    confidences, risks = zip(*calibration.curve, strict=True)
    assert len(confidences) <= MAX_POINTS
    assert list(confidences) == sorted(confidences) and list(risks) == sorted(risks, reverse=True)

    logits, targets = draw(20_000, seed=4)
    calibrated = calibration.calibrate(log_softmax(logits))
    answered = np.exp(calibrated.max(axis=1)) >= calibration.least_confidence(0.1)
    assert 0.2 < answered.mean() < 0.9
    assert (calibrated.argmax(axis=1) != targets)[answered].mean() < 0.12
