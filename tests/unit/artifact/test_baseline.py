"""The histograms of validation: what is measured, how it is binned, and how it is stored."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from artifact.baseline import (
    CONFIDENCE_EDGES,
    MAX_GROUPS,
    SIGNALS,
    UNKNOWN,
    Baseline,
    build_baseline,
    find_bins,
    group_labels,
    laplacian_variance,
    mean_brightness,
    measure,
    read_size,
)
from tests.bundles import draw_picture, encode_picture

NUM_IMAGES, NUM_CLASSES, SIDE = 60, 4, 24


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """(60, 24, 24, 3): drawn pictures, no two alike."""
    return np.stack(
        [np.asarray(draw_picture(width=SIDE, height=SIDE, seed=seed)) for seed in range(NUM_IMAGES)]
    )


@pytest.fixture(scope="module")
def log_probabilities() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return np.asarray(np.log(rng.dirichlet(np.ones(NUM_CLASSES), NUM_IMAGES)))


@pytest.fixture(scope="module")
def baseline(pixels: NDArray[np.uint8], log_probabilities: NDArray[np.float64]) -> Baseline:
    return build_baseline(pixels, log_probabilities, [(60, 40 + index) for index in range(NUM_IMAGES)])


def test_every_image_is_counted_once_in_every_signal(baseline: Baseline) -> None:
    assert tuple(baseline.histograms) == SIGNALS
    assert {sum(counts) for counts in baseline.counts().values()} == {NUM_IMAGES}


def test_counts_are_those_of_the_images_own_bins(
    baseline: Baseline, pixels: NDArray[np.uint8], log_probabilities: NDArray[np.float64]
) -> None:
    sizes = [(60, 40 + index) for index in range(NUM_IMAGES)]
    bins = np.array(
        [
            find_bins(baseline, measure(image, row, baseline.label_groups, size))
            for image, row, size in zip(pixels, log_probabilities, sizes, strict=True)
        ]
    )

    for column, counts in enumerate(baseline.counts().values()):
        assert tuple(np.bincount(bins[:, column], minlength=len(counts))) == counts


def test_without_sizes_the_other_signals_remain(
    pixels: NDArray[np.uint8], log_probabilities: NDArray[np.float64], baseline: Baseline
) -> None:
    sizeless = build_baseline(pixels, log_probabilities)
    signals = measure(pixels[0], log_probabilities[0], baseline.label_groups)

    assert tuple(sizeless.histograms) == SIGNALS[:4]
    assert find_bins(baseline, signals)[4:] == (UNKNOWN, UNKNOWN)


def test_baseline_survives_json(baseline: Baseline) -> None:
    stored = json.loads(json.dumps(asdict(baseline)))

    assert Baseline.from_json(stored, num_classes=NUM_CLASSES) == baseline


def test_signal_of_a_newer_version_is_ignored(baseline: Baseline) -> None:
    stored = json.loads(json.dumps(asdict(baseline)))
    stored["histograms"]["smell"] = {"edges": [1.0], "counts": [1, 2]}

    assert Baseline.from_json(stored, num_classes=NUM_CLASSES) == baseline


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"label_groups": [0]}, "label_groups for 4 labels", id="groups"),
        pytest.param(
            {"histograms": {"blur": {"edges": [1, 2], "counts": [3]}}}, "blur: edges and counts", id="counts"
        ),
        pytest.param(
            {"histograms": {"blur": {"edges": [2, 1], "counts": [3, 3, 3]}}}, "do not fit", id="order"
        ),
    ],
)
def test_baseline_that_does_not_fit_is_refused(
    change: dict[str, object], message: str, baseline: Baseline
) -> None:
    with pytest.raises(ValueError, match=message):
        Baseline.from_json(asdict(baseline) | change, num_classes=NUM_CLASSES)


def test_pictures_validation_never_had_fall_into_bins_of_their_own() -> None:
    grey = np.full((8, SIDE, SIDE, 3), 100, dtype=np.uint8)
    sure = np.log(np.full((8, 2), [0.9, 0.1]))
    baseline = build_baseline(grey, sure, [(64, 64)] * 8)

    bins = {
        shade: find_bins(baseline, measure(np.full_like(grey[0], shade), sure[0], (0, 1), (shade, shade)))
        for shade in (50, 64, 100, 150)
    }

    brightness, size = SIGNALS.index("brightness"), SIGNALS.index("shorter_side")
    assert len({bins[shade][brightness] for shade in (50, 100, 150)}) == 3
    assert len({bins[shade][size] for shade in (50, 64, 150)}) == 3


def test_confidence_always_tells_doubt_from_certainty(pixels: NDArray[np.uint8]) -> None:
    certain = np.log(np.tile([1 - 3e-9, 1e-9, 1e-9, 1e-9], (NUM_IMAGES, 1)))

    edges = build_baseline(pixels, certain).histograms["confidence"].edges

    assert set(edges) >= CONFIDENCE_EDGES
    assert max(edges) < 1.0  # above would be float's rounding


def test_blurring_and_darkening_lower_their_signals() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    sharp = np.asarray(picture)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)))
    dark = (sharp // 2).astype(np.uint8)

    answers = {
        name: measure(image, np.log([0.6, 0.4]), (0, 1))
        for name, image in (("sharp", sharp), ("blurred", blurred), ("dark", dark))
    }

    assert answers["blurred"]["blur"] < answers["sharp"]["blur"] - 1
    assert answers["dark"]["brightness"] == pytest.approx(answers["sharp"]["brightness"] / 2, rel=0.02)
    assert answers["sharp"]["confidence"] == pytest.approx(0.6)


def test_size_is_told_in_powers_of_two_and_brightness_by_every_second_pixel() -> None:
    picture = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    picture[::2, ::2] = 10

    signals = measure(picture, np.log([0.6, 0.4]), (0, 1), (400, 100))

    assert signals["brightness"] == 10.0
    assert signals["aspect"] == 2.0
    assert signals["shorter_side"] == pytest.approx(np.log2(100))


def test_outer_edges_enclose_what_validation_had() -> None:
    pictures = np.stack([np.full((SIDE, SIDE, 3), level, dtype=np.uint8) for level in range(10, 21)])
    answers = np.log(np.tile([0.6, 0.4], (len(pictures), 1)))

    histogram = build_baseline(pictures, answers).histograms["brightness"]

    assert (histogram.edges[0], histogram.edges[-1]) == (10.0, 20.001)
    assert histogram.counts[0] == histogram.counts[-1] == 0


def test_answers_for_other_pictures_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="zip"):
        build_baseline(pixels, np.log(np.full((NUM_IMAGES + 1, 2), 0.5)))


@pytest.mark.parametrize(("size", "step"), [((1, 1), 2), ((7, 4), 2), ((167, 64), 2), ((224, 225), 4)])
def test_brightness_is_the_mean_of_pixels_a_step_apart(size: tuple[int, int], step: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    assert mean_brightness(pixels) == float(pixels[::step, ::step].mean())


@pytest.mark.parametrize(("height", "step"), [(3, 2), (40, 2), (41, 2), (224, 4), (225, 4), (226, 4)])
def test_laplacian_variance_is_that_of_the_definition_on_rows_a_step_apart(height: int, step: int) -> None:
    channel = np.random.default_rng(1).integers(0, 256, (height, 30), dtype=np.uint8)
    values = channel.astype(np.float64)
    expected = [
        values[y - 1, x] + values[y + 1, x] + values[y, x - 1] + values[y, x + 1] - 4 * values[y, x]
        for y in range(1, height - 1, step)
        for x in range(1, 29)
    ]

    assert laplacian_variance(channel) == pytest.approx(np.var(expected), rel=1e-5)
    assert laplacian_variance(channel[:2]) == 0.0


def test_labels_are_grouped_into_about_equal_shares() -> None:
    counts = np.arange(120)
    groups = np.array(group_labels(counts))

    shares = np.bincount(groups, weights=counts)

    assert len(shares) == MAX_GROUPS
    assert shares.max() - shares.min() <= 0.1 * shares.mean()
    assert sorted(group_labels(np.array([5, 0, 9]))) == [0, 1, 2]


def test_size_is_read_from_the_header_alone() -> None:
    body = encode_picture("PNG")

    assert read_size(body[:64]) == (60, 40)
