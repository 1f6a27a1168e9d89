"""SageMaker's early stopping rule on small series."""

from __future__ import annotations

import pytest

from local.tuning_stopping import median_of_running_averages, reason_to_stop


def test_median_of_running_averages_is_as_documented() -> None:
    previous = [{1: 0.2, 2: 0.4, 3: 0.9}, {1: 0.5, 2: 0.5}, {1: 0.1, 2: 0.3, 3: 0.5}]

    assert median_of_running_averages(previous, 1) == pytest.approx(0.2)
    assert median_of_running_averages(previous, 2) == pytest.approx(0.3)  # of 0.3, 0.5 and 0.2
    assert median_of_running_averages(previous, 3) == pytest.approx(0.4)  # of 0.5 and 0.3
    assert median_of_running_averages(previous, 4) is None


@pytest.mark.parametrize(
    ("newest", "is_maximized", "stops"),
    [
        pytest.param(0.29, True, True, id="lower-accuracy"),
        pytest.param(0.30, True, False, id="as-good"),
        pytest.param(0.31, False, True, id="higher-loss"),
        pytest.param(0.29, False, False, id="lower-loss"),
    ],
)
def test_trial_that_is_worse_than_the_median_is_stopped(
    newest: float, is_maximized: bool, stops: bool
) -> None:
    previous = [{1: 0.2, 2: 0.4}, {1: 0.5, 2: 0.5}, {1: 0.1, 2: 0.3}]

    reason = reason_to_stop({1: 0.9, 2: newest}, previous, objective="x", is_maximized=is_maximized)

    assert bool(reason) == stops
    assert not stops or (reason.startswith(f"x={newest:.4f} after epoch 2") and "0.3000" in reason)


def test_first_trial_and_silent_ones_are_never_stopped() -> None:
    assert reason_to_stop({1: 0.0}, [], objective="x", is_maximized=True) == ""
    assert reason_to_stop({1: 0.0}, [{}, {}], objective="x", is_maximized=True) == ""
    assert reason_to_stop({}, [{1: 0.9}], objective="x", is_maximized=True) == ""


def test_epoch_without_a_finite_value_is_left_out_of_the_average() -> None:
    assert median_of_running_averages([{1: 0.4, 3: 0.6}], 3) == pytest.approx(0.5)
