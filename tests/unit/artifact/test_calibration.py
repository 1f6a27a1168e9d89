"""Temperature, risk and looks, as the server applies them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from artifact.calibration import Calibration
from artifact.looks import FEATURES, LEAST_IMAGES, Looks, build_looks, measure_looks
from artifact.predictions import log_softmax

CALIBRATION = Calibration(temperature=2.0, curve=((0.5, 0.2), (0.7, 0.1), (0.9, 0.02)))


def pictures(count: int, *, seed: int, contrast: int = 40) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(count, 16, 16, 3) noise around a tint of its own."""
    random = np.random.default_rng(seed)
    tint = random.integers(60, 190, size=(count, 1, 1, 3))
    noise = random.integers(-contrast, contrast + 1, size=(count, 16, 16, 3))
    return (tint + noise).astype(np.uint8)


def test_calibrated_is_the_softmax_of_the_divided_logits() -> None:
    logits = np.array([[1.0, 3.0, -2.0], [0.0, 0.0, 4.0]])

    calibrated = CALIBRATION.calibrate(log_softmax(logits))

    np.testing.assert_allclose(calibrated, log_softmax(logits / 2.0))
    np.testing.assert_allclose(CALIBRATION.calibrate(log_softmax(logits)[0]), calibrated[0])


@pytest.mark.parametrize(
    ("risk", "expected"), [(0.5, 0.5), (0.2, 0.5), (0.15, 0.7), (0.02, 0.9), (0.01, 1.1)], ids=str
)
def test_least_confidence_is_the_first_that_keeps_the_risk(risk: float, expected: float) -> None:
    assert CALIBRATION.least_confidence(risk) == expected


def test_calibration_and_looks_come_back_from_json_as_they_were() -> None:
    looks = build_looks(pictures(LEAST_IMAGES, seed=0))
    assert looks is not None

    for value in (CALIBRATION, looks):
        assert type(value).from_json(json.loads(json.dumps(dataclasses.asdict(value)))) == value


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param({"mean": [0.0], "inverse": [[1.0]], "quantiles": [0.0]}, id="few features"),
        pytest.param(
            {
                "mean": [0.0] * FEATURES,
                "inverse": [[0.0] * FEATURES] * FEATURES,
                "quantiles": [2.0, 1.0],
            },
            id="descending",
        ),
    ],
)
def test_looks_that_do_not_fit_are_refused(stored: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="looks"):
        Looks.from_json(stored)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Calibration.from_json({"temperature": temperature, "curve": []})


def test_usual_picture_is_not_rare_and_a_strange_one_is() -> None:
    looks = build_looks(pictures(200, seed=0))
    assert looks is not None

    usual = [looks.rarity(image) for image in pictures(100, seed=1)]
    strange = [looks.rarity(image) for image in pictures(20, seed=2, contrast=4)]

    assert 0.3 < np.median(usual) < 0.7
    assert min(strange) == 1.0
    assert looks.rarity(np.zeros((16, 16, 3), dtype=np.uint8)) == 1.0


def test_percentiles_go_from_the_most_usual_validation_picture_to_the_rarest() -> None:
    images = pictures(200, seed=0)
    looks = build_looks(images)
    assert looks is not None

    rarities = [looks.rarity(image) for image in images]

    assert len(looks.quantiles) == 101
    assert min(rarities) == pytest.approx(0.0) and max(rarities) == pytest.approx(1.0)
    assert np.mean(rarities) == pytest.approx(0.5, abs=0.01)


def test_tints_are_the_distances_between_neighbouring_colours() -> None:
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    picture[:, :, 1], picture[:, ::2, 2] = 51, 204  # green is 0.2; blue 0.8 and 0 in turns

    red_green, green_blue = np.exp(measure_looks(picture)[8:10]) - 0.01

    assert red_green == pytest.approx(0.2, rel=1e-5)
    assert green_blue == pytest.approx((0.6 + 0.2) / 2, rel=1e-5)


def test_too_few_pictures_have_no_looks() -> None:
    assert build_looks(pictures(LEAST_IMAGES - 1, seed=0)) is None


@pytest.mark.parametrize("shape", [(16, 16, 3), (37, 37, 3), (224, 224, 3)], ids=str)
def test_looks_of_any_size_are_finite(shape: tuple[int, int, int]) -> None:
    assert measure_looks(np.zeros(shape, dtype=np.uint8)).shape == (FEATURES,)
    assert np.isfinite(measure_looks(np.zeros(shape, dtype=np.uint8))).all()
