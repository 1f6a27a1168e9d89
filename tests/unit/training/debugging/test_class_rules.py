"""ClassImbalance on counted predictions: a rare label that the network has given up."""

from __future__ import annotations

import numpy as np
import pytest

from training.debugging.rules import RuleSettings, evaluate
from training.debugging.rules.rule import Verdict
from training.debugging.series import EVAL, TRAIN, Fact, Predictions, Series

LABELS = ["dog", "cat", "fox"]


def judge(*rows: list[int], mode: str = TRAIN) -> Verdict:
    """Of one record with a row of predictions for each right label."""
    series = Series(facts=[Fact(time=0.0, name="labels", value=LABELS)])
    series.add(Predictions(step=0, mode=mode, confusion=list(rows)))
    (verdict,) = evaluate(series, [RuleSettings(name="ClassImbalance")])
    return verdict


def test_rare_label_that_is_mostly_taken_for_others_is_named() -> None:
    verdict = judge([240, 0, 0], [20, 220, 0], [30, 6, 4])

    assert verdict.fired and verdict.step == 0
    assert verdict.summary == (
        "fox, with 40 of 520 labels, is mispredicted in 90 % of its images (threshold_misprediction 70 %)."
    )
    assert verdict.evidence["class"] == [0, 1, 2]
    assert verdict.evidence["share mispredicted"] == pytest.approx([0, 20 / 240, 0.9])


def test_rare_label_is_named_also_where_a_frequent_one_is_worse() -> None:
    verdict = judge([400, 0, 0], [120, 0, 0], [36, 0, 4])

    assert verdict.fired and verdict.summary.startswith("fox, ")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(([240, 0, 0], [0, 240, 0], [28, 0, 12]), id="wrong in 70 % of its images"),
        pytest.param(([250, 0, 0], [0, 250, 0], [90, 0, 10]), id="half as many as the mean"),
        pytest.param(([120, 120, 0], [120, 120, 0], [36, 0, 4]), id="the network errs everywhere"),
    ],
)
def test_label_is_left_alone(rows: tuple[list[int], ...]) -> None:
    verdict = judge(*rows)

    assert verdict.status == "NoIssuesFound", verdict.summary
    counts = np.sum(rows, axis=1)
    assert verdict.summary == (
        f"The most frequent class has {counts.max()} of {counts.sum()} labels, the rarest {counts.min()}."
    )
    assert verdict.evidence == {"class": [0.0, 1.0, 2.0], "labels": counts.tolist()}


@pytest.mark.parametrize(("images", "fired"), [(4, False), (5, True)])
def test_few_images_say_nothing(images: int, fired: bool) -> None:
    settings = RuleSettings(name="ClassImbalance", parameters={"samples": "90"})
    series = Series()
    series.add(Predictions(step=7, mode=TRAIN, confusion=[[45, 0, 0], [5, 40, 0], [images, 0, 0]]))

    (verdict,) = evaluate(series, [settings])

    assert verdict.fired is fired, verdict.summary
    assert not fired or verdict.summary.startswith("class 2, with 5 of 95 labels")


def test_validation_is_not_counted() -> None:
    verdict = judge([240, 0, 0], [20, 220, 0], [30, 6, 4], mode=EVAL)

    assert verdict.status == "NotApplicable"
    assert verdict.summary == "0 labels were recorded; the rule waits for samples=500."
