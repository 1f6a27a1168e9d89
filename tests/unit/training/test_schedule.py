"""The learning rate's shape."""

from __future__ import annotations

import pytest

from training.schedule import learning_rate


def _rates(schedule: str) -> list[float]:
    return [
        learning_rate(step, schedule=schedule, peak=2.0, warmup_steps=4, total_steps=20) for step in range(20)
    ]


def test_warm_up_rises_to_the_peak() -> None:
    assert _rates("cosine")[:4] == [0.5, 1.0, 1.5, 2.0]


def test_cosine_falls_to_nearly_zero() -> None:
    rates = _rates("cosine")[4:]

    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 2.0 and rates[8] == pytest.approx(1.0) and rates[-1] < 0.03


def test_constant_stays() -> None:
    assert set(_rates("constant")[4:]) == {2.0}
