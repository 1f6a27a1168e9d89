"""The sliding window and the stability index."""

from __future__ import annotations

import numpy as np
import pytest

from serving.drift import ALERT_PSI, MIN_PICTURES, DriftWindow, has_drifted, psi, stability

SHARES = {
    "tenths": np.full(10, 0.1),
    "skewed": np.array([0.9, 0.05, 0.03, 0.015, 0.005]),
    "groups": np.array([0.2, 0.2, *[0.1] * 5, *[0.02] * 5]),
    "two": np.array([0.97, 0.03]),
}


def test_index_is_the_textbooks_for_large_samples() -> None:
    expected, observed = [50_000, 30_000, 20_000], [40_000, 30_000, 30_000]
    textbook = (0.4 - 0.5) * np.log(0.4 / 0.5) + (0.3 - 0.2) * np.log(0.3 / 0.2)

    assert psi(expected, observed) == pytest.approx(textbook, abs=1e-4)


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize(
    ("num_valid", "num_live", "limit"),
    [pytest.param(500, 1000, 0.1, id="full window"), pytest.param(200, MIN_PICTURES, 0.2, id="least")],
)
def test_samples_of_one_population_stay_under_the_limit(
    shares: np.ndarray[tuple[int], np.dtype[np.float64]], num_valid: int, num_live: int, limit: float
) -> None:
    rng = np.random.default_rng(7)

    worst = max(
        psi(rng.multinomial(num_valid, shares).tolist(), rng.multinomial(num_live, shares).tolist())
        for _ in range(500)
    )

    assert worst < limit < ALERT_PSI


def test_mean_index_without_a_shift_is_nearly_nothing() -> None:
    rng = np.random.default_rng(3)
    shares = SHARES["groups"]

    indices = [
        psi(rng.multinomial(500, shares).tolist(), rng.multinomial(1000, shares).tolist()) for _ in range(300)
    ]

    assert np.mean(indices) < 0.02  # (12 - 1)(1/500 + 1/1000) = 0.033 were it not subtracted


def test_shift_into_an_empty_bin_raises_the_alert() -> None:
    indices = stability({"blur": [100, 100, 100, 0]}, {"blur": [300, 300, 300, 300]})

    assert indices["blur"] > ALERT_PSI
    assert has_drifted(indices)


def test_few_pictures_say_nothing() -> None:
    assert stability({"blur": [100, 0]}, {"blur": [0, MIN_PICTURES - 1]}) == {}
    assert stability({"blur": [99, 0]}, {"blur": [0, 1000]}) == {}
    assert not has_drifted({})


def test_window_forgets_what_is_older_than_its_size() -> None:
    window = DriftWindow({"confidence": [1, 1, 1], "size": [2, 1]}, size=4)

    window.add([(0, 0)] * 7)
    window.add([(2, 1), (1, -1)])

    assert window.counts == {"confidence": [2, 1, 1], "size": [2, 1]}


def test_windows_of_two_processes_add_up() -> None:
    baseline = {"brightness": [400, 400]}
    windows = [DriftWindow(baseline) for _ in range(2)]
    windows[0].add([(0,)] * 300)
    windows[1].add([(1,)] * 300)

    summed = [sum(counts) for counts in zip(*(w.counts["brightness"] for w in windows), strict=True)]

    assert stability(baseline, {"brightness": summed})["brightness"] == 0.0
    assert all(has_drifted(stability(baseline, window.counts)) for window in windows)


def test_index_without_bins_or_pictures_is_zero() -> None:
    assert psi([5], [7]) == psi([0, 0], [1, 2]) == psi([1, 2], [0, 0]) == 0.0
