"""The numbers, against examples worked out by hand, published values and sklearn."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from scoring.columns import tabulate
from scoring.comparison import Record
from scoring.comparison import compare as compare_columns
from scoring.items import Item
from scoring.proportions import proportion
from scoring.scores import score, write_scores

LABELS = ("cat", "dog", "fox")


def item(path: str, label: str | None, *probabilities: float) -> Item:
    return Item(path=path, label=label, log_probabilities=np.log(np.array(probabilities)))


def failed(path: str, label: str | None) -> Item:
    return Item(path=path, label=label, log_probabilities=None, error="no output")


def random_items(count: int, num_classes: int, seed: int = 0) -> tuple[list[Item], list[str]]:
    generator = np.random.default_rng(seed)
    labels = [f"label {target}" for target in range(num_classes)]
    logits = generator.normal(size=(count, num_classes)) * 2
    rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    truth = generator.integers(num_classes - 1, size=count)  # the last label never occurs
    return [
        Item(path=f"{i}.jpg", label=labels[truth[i]], log_probabilities=rows[i]) for i in range(count)
    ], labels


FOUR = (
    item("cat/1.jpg", "cat", 0.7, 0.2, 0.1),
    item("dog/1.jpg", "dog", 0.6, 0.3, 0.1),
    item("dog/2.jpg", "dog", 0.1, 0.8, 0.1),
    item("fox/1.jpg", "fox", 0.1, 0.75, 0.15),
)


def test_tie_is_won_by_the_first_label() -> None:
    (mistake,) = score([item("a/1.jpg", "cat", 0.2, 0.4, 0.4)], LABELS)["worst_mistakes"]

    assert mistake["predicted"] == "dog"


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        pytest.param(81, 263, 0.2553, 0.3662, id="Newcombe 1998 81/263"),
        pytest.param(15, 148, 0.0624, 0.1605, id="Newcombe 1998 15/148"),
        pytest.param(0, 20, 0.0, 0.1611, id="Newcombe 1998 0/20"),
        pytest.param(1, 29, 0.0061, 0.1718, id="Newcombe 1998 1/29"),
    ],
)
def test_interval_equals_published_wilson_value(correct: int, count: int, low: float, high: float) -> None:
    answer = proportion(correct, count)

    assert (answer["low"], answer["high"]) == pytest.approx((low, high), abs=5e-5)
    assert answer["value"] == correct / count


def test_failed_items_count_as_wrong_in_the_second_accuracy_only() -> None:
    scores = score([*FOUR, failed("cat/9.jpg", "cat"), failed("else/9.jpg", None)], LABELS)

    odd = {"renamed": 0, "duplicated": 0, "unexpected": 0}
    assert scores["counts"] == {"items": 6, "scored": 4, "unlabelled": 0, "failed": 2, **odd}
    assert (scores["top1_accuracy"]["correct"], scores["top1_accuracy"]["count"]) == (2, 4)
    assert (scores["top1_accuracy_all"]["correct"], scores["top1_accuracy_all"]["count"]) == (2, 5)
    assert scores["missing_or_failed"][0] == {"path": "cat/9.jpg", "error": "no output"}


def test_unlabelled_items_are_counted_and_not_scored() -> None:
    scores = score([*FOUR, item("else/1.jpg", None, 0.8, 0.1, 0.1)], LABELS)

    odd = {"renamed": 0, "duplicated": 0, "unexpected": 0}
    assert scores["counts"] == {"items": 5, "scored": 4, "unlabelled": 1, "failed": 0, **odd}


def test_not_finite_log_probabilities_are_a_failed_item() -> None:
    diverged = Item(path="cat/2.jpg", label="cat", log_probabilities=np.array([np.nan, -1.0, -1.0]))

    scores = score([diverged], LABELS)

    assert scores["missing_or_failed"] == [{"path": "cat/2.jpg", "error": "not finite"}]


def test_confusion_matrix_has_truth_in_rows() -> None:
    scores = score(FOUR, LABELS)

    assert scores["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert scores["confused_pairs"] == [
        {"label": "dog", "predicted": "cat", "count": 1, "examples": ["dog/1.jpg"]},
        {"label": "fox", "predicted": "dog", "count": 1, "examples": ["fox/1.jpg"]},
    ]


def test_loss_is_the_mean_cross_entropy() -> None:
    expected = -sum(math.log(value) for value in (0.7, 0.3, 0.8, 0.15)) / 4

    assert score(FOUR, LABELS)["loss"] == pytest.approx(expected)


def test_calibration_equals_hand_computed_bins() -> None:
    # Confidences 0.7, 0.6, 0.8, 0.75 fall into the bins (10/15, 11/15], (8/15, 9/15], (11/15, 12/15] twice.
    calibration = score(FOUR, LABELS)["calibration"]

    expected = (1 * abs(0.7 - 1) + 1 * abs(0.6 - 0) + 2 * abs(0.775 - 0.5)) / 4
    assert calibration["expected_calibration_error"] == pytest.approx(expected)
    assert [row["count"] for row in calibration["bins"]] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 0, 0, 0]
    assert calibration["bins"][11]["confidence"] == pytest.approx(0.775)
    assert calibration["bins"][0]["accuracy"] is None


def test_worst_mistakes_come_surest_first_and_ties_by_path() -> None:
    items = [
        item("dog/b.jpg", "dog", 0.9, 0.05, 0.05),
        item("dog/a.jpg", "dog", 0.9, 0.05, 0.05),
        item("cat/1.jpg", "cat", 0.02, 0.95, 0.03),
    ]

    mistakes = score(items, LABELS)["worst_mistakes"]

    assert [mistake["path"] for mistake in mistakes] == ["cat/1.jpg", "dog/a.jpg", "dog/b.jpg"]
    assert mistakes[0]["predicted"] == "dog"
    assert (mistakes[0]["probability"], mistakes[0]["probability_of_label"]) == pytest.approx((0.95, 0.02))


def test_scores_of_many_items_equal_sklearn() -> None:
    items, labels = random_items(count=500, num_classes=8)
    rows = np.stack([row.log_probabilities for row in items if row.log_probabilities is not None])
    truth = np.array([labels.index(str(row.label)) for row in items])
    every = range(len(labels))

    scores = score(items, labels)

    precision, recall, f1, support = precision_recall_fscore_support(
        truth, rows.argmax(axis=1), labels=every, zero_division=0
    )
    for name, column in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        assert [row[name] for row in scores["per_class"]] == pytest.approx(list(column)), name
    assert scores["macro"]["f1"] == pytest.approx(f1[:-1].mean())  # the label without images was not tested
    assert scores["macro"]["classes"] == 7
    assert scores["confusion_matrix"] == confusion_matrix(truth, rows.argmax(axis=1), labels=every).tolist()
    assert scores["loss"] == pytest.approx(log_loss(truth, np.exp(rows), labels=every))
    assert scores["top5_accuracy"]["value"] == top_k_accuracy_score(truth, rows, k=5, labels=every)


def test_top5_with_fewer_labels_is_always_right() -> None:
    assert score(FOUR, LABELS)["top5_accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([], id="no items"),
        pytest.param([failed("cat/1.jpg", "cat")], id="all failed"),
        pytest.param([item("x/1.jpg", None, 0.8, 0.1, 0.1)], id="all unlabelled"),
    ],
)
def test_nothing_scored_gives_none_and_valid_json(tmp_path: Path, items: Sequence[Item]) -> None:
    scores = score(items, LABELS)
    write_scores(scores, tmp_path / "scores.json")

    assert scores["top1_accuracy"]["value"] is None
    assert scores["loss"] is None
    assert scores["calibration"]["expected_calibration_error"] is None


def test_label_that_is_not_among_the_labels_raises_and_names_it() -> None:
    with pytest.raises(ValueError, match="'wolf'"):
        score([item("wolf/1.jpg", "wolf", 0.8, 0.1, 0.1)], LABELS)


def test_written_scores_read_back_equal_and_keep_matrix_rows_on_a_line(tmp_path: Path) -> None:
    hostile = item("dog/[\n1, 2]\ud800.jpg", "dog", 0.9, 0.05, 0.05)
    scores = score([*FOUR, hostile], LABELS)

    write_scores(scores, tmp_path / "deep" / "scores.json")

    text = (tmp_path / "deep" / "scores.json").read_text()
    assert json.loads(text) == scores
    assert text.endswith("}\n")
    assert "    [2, 1, 0],\n" in text


def trainer_record(items: Sequence[Item]) -> dict[str, tuple[str, float]]:
    record = {}
    for row in items:
        assert row.log_probabilities is not None
        target = int(np.argmax(row.log_probabilities))
        record[row.path] = (LABELS[target], float(row.log_probabilities[target]))
    return record


def compare(items: Sequence[Item], record: dict[str, tuple[str, float]], top1: float = 0.5) -> dict[str, Any]:
    known = Record(precision="fp32", predictions=record, top1_accuracy=top1)
    return compare_columns(tabulate(items, LABELS, recorded=known.predicted), known)


def test_identical_answers_have_no_difference() -> None:
    comparison = compare(FOUR, trainer_record(FOUR))

    assert comparison["top1_difference"] == 0
    assert (comparison["items_compared"], comparison["items_same_prediction"]) == (4, 4)
    assert comparison["largest_log_probability_difference"] == 0
    assert comparison["disagreements"] == []


def test_changed_answer_is_listed_with_both_predictions() -> None:
    record = {**trainer_record(FOUR), "fox/1.jpg": ("fox", math.log(0.6))}

    comparison = compare(FOUR, record, top1=0.75)

    assert comparison["top1_difference"] == pytest.approx(-0.25)
    assert comparison["items_same_prediction"] == 3
    assert comparison["largest_log_probability_difference"] == pytest.approx(math.log(0.6 / 0.15))
    (disagreement,) = comparison["disagreements"]
    assert (disagreement["path"], disagreement["predicted"], disagreement["trainer_predicted"]) == (
        "fox/1.jpg",
        "dog",
        "fox",
    )


@pytest.mark.parametrize(
    ("items", "strangers", "absent"),
    [
        pytest.param((*FOUR, item("cat/new.jpg", "cat", 0.8, 0.1, 0.1)), 1, 0, id="one more"),
        pytest.param(FOUR[:3], 0, 1, id="one less"),
        pytest.param((*FOUR[:3], failed("fox/1.jpg", "fox")), 0, 1, id="one failed"),
        pytest.param((), 0, 4, id="none"),
    ],
)
def test_other_set_of_images_gives_no_difference(items: Sequence[Item], strangers: int, absent: int) -> None:
    comparison = compare(items, trainer_record(FOUR))

    assert comparison["top1_difference"] is None
    assert comparison["not_in_trainer_test_set"] == strangers
    assert comparison["trainer_items_without_answer"] == absent
