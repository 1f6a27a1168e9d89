"""What abstaining gains, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.abstaining import measure_abstaining


def measure(*answers: tuple[float, bool]) -> dict[str, object]:
    confidences = np.array([confidence for confidence, _ in answers])
    return measure_abstaining(np.array([right for _, right in answers], dtype=bool), confidences)


FOUR = ((0.6, False), (0.9, True), (0.8, True), (0.7, False))


def test_curve_goes_from_the_surest_answer_to_all() -> None:
    curve = measure_abstaining(
        np.array([right for _, right in FOUR]), np.array([confidence for confidence, _ in FOUR])
    )["curve"]

    assert [(row["threshold"], row["coverage"], row["accuracy"]["value"]) for row in curve] == [
        (0.9, 0.25, 1.0),
        (0.8, 0.5, 1.0),
        (0.7, 0.75, pytest.approx(2 / 3)),
        (0.6, 1.0, 0.5),
    ]


def test_equal_confidences_are_answered_together() -> None:
    curve = measure((0.9, True), (0.9, False), (0.9, True), (0.5, True))["curve"]

    assert isinstance(curve, list)
    assert [(row["coverage"], row["accuracy"]["correct"]) for row in curve] == [(0.75, 2), (1.0, 3)]


def test_threshold_for_a_wanted_accuracy_covers_as_much_as_it_can() -> None:
    wanted = measure(*((0.9 - place / 100, place != 30) for place in range(60)))["wanted"]

    assert isinstance(wanted, list)
    by_accuracy = {row["wanted"]: row["coverage"] for row in wanted}
    assert by_accuracy == {0.9: 1.0, 0.95: 1.0, 0.99: 0.5}


def test_luck_of_the_surest_few_is_no_threshold() -> None:
    wanted = measure(*((0.9 - place / 100, place < 19) for place in range(60)))["wanted"]

    assert isinstance(wanted, list)
    assert [row["coverage"] for row in wanted] == [pytest.approx(21 / 60), pytest.approx(20 / 60), 0.0]


def test_accuracy_that_no_threshold_reaches_is_none() -> None:
    wanted = measure((0.9, False), (0.8, True))["wanted"]

    assert isinstance(wanted, list) and [row["threshold"] for row in wanted] == [None, None, None]


def test_nothing_scored_has_no_curve() -> None:
    answer = measure()

    assert (answer["curve"], answer["coverages"]) == ([], [])
