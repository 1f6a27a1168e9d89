"""The numbers: accuracy with its interval, per-class scores, calibration, mistakes, the trainer's word.

Everything returned is ready for JSON; what cannot be computed is None, never NaN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from scoring.items import Item

NUM_BINS = 15
NUM_WORST_MISTAKES = 24
NUM_CONFUSED_PAIRS = 20
NUM_DISAGREEMENTS = 20

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def predicted_target(log_probabilities: NDArray[Any]) -> int:
    """The one definition of a top-1 prediction: the first maximum."""
    return int(np.argmax(log_probabilities))


def score(items: Sequence[Item], labels: Sequence[str]) -> dict[str, Any]:
    """Every number about `items`; failed ones are listed, and count as wrong in `top1_accuracy_all` only."""
    answered = [item for item in items if is_answered(item)]
    failed = [item for item in items if not is_answered(item)]
    scored = [item for item in answered if item.label is not None]
    targets, log_probabilities = _arrays(scored, labels)
    predicted = np.array([predicted_target(row) for row in log_probabilities], dtype=np.int64)
    confusion = _confusion(targets, predicted, len(labels))
    correct = int(np.trace(confusion))
    in_top5 = int((_ranks(targets, log_probabilities) < 5).sum())
    per_class = _per_class(confusion, labels)
    return {
        "labels": list(labels),
        "counts": {
            "items": len(items),
            "scored": len(scored),
            "unlabelled": len(answered) - len(scored),
            "failed": len(failed),
        },
        "top1_accuracy": proportion(correct, len(scored)),
        "top1_accuracy_all": proportion(
            correct, len(scored) + sum(item.label is not None for item in failed)
        ),
        "top5_accuracy": proportion(in_top5, len(scored)),
        "loss": _mean(-log_probabilities[np.arange(len(targets)), targets]),
        "macro": _macro(per_class),
        "calibration": _calibration(
            predicted == targets, np.exp(log_probabilities.max(axis=1, initial=-np.inf))
        ),
        "per_class": per_class,
        "confused_pairs": _confused_pairs(confusion, labels),
        "worst_mistakes": _worst_mistakes(scored, labels),
        "confusion_matrix": confusion.tolist(),  # rows: truth, columns: prediction, both in label order
        "missing_or_failed": [{"path": item.path, "error": item.error or "not finite"} for item in failed],
    }


def is_answered(item: Item) -> bool:
    """False as well for a network that diverged: its NaN would make every mean a NaN."""
    return item.log_probabilities is not None and bool(np.isfinite(item.log_probabilities).all())


def proportion(correct: int, count: int) -> dict[str, Any]:
    """A fraction with its 95 % Wilson interval, which stays inside 0-1 and works for 0 and for all."""
    if count == 0:
        return {"value": None, "low": None, "high": None, "correct": 0, "count": 0}
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    low, high = float(interval.low), float(interval.high)
    return {"value": correct / count, "low": low, "high": high, "correct": correct, "count": count}


def compare_with_trainer(
    items: Sequence[Item],
    labels: Sequence[str],
    *,
    trainer_predictions: Mapping[str, tuple[str, float]],
    trainer_metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Item by item against the artifact's record, `trainer_predictions`: path -> (label, log probability)."""
    answered = [item for item in items if is_answered(item)]
    scored = [item for item in answered if item.label is not None]
    compared = [
        _compare_item(item, labels, trainer_predictions)
        for item in answered
        if item.path in trainer_predictions
    ]
    disagreements = [item for item in compared if item["predicted"] != item["trainer_predicted"]]
    correct = sum(labels[predicted_target(_row(item))] == item.label for item in scored)
    accuracy = correct / len(scored) if scored else None
    trainer_accuracy = trainer_metrics.get("top1_accuracy")
    is_same_set = {item.path for item in scored} == trainer_predictions.keys()
    difference = None
    if is_same_set and accuracy is not None and trainer_accuracy is not None:
        difference = accuracy - trainer_accuracy
    return {
        "top1_accuracy": accuracy,
        "trainer_top1_accuracy": trainer_accuracy,
        "top1_difference": difference,
        "items_compared": len(compared),
        "items_same_prediction": len(compared) - len(disagreements),
        "not_in_trainer_test_set": len(answered) - len(compared),
        "trainer_items_without_answer": len(trainer_predictions) - len(compared),
        "largest_log_probability_difference": max(
            (item["log_probability_difference"] for item in compared), default=None
        ),
        "disagreements": disagreements[:NUM_DISAGREEMENTS],
    }


def write_scores(scores: Mapping[str, Any], destination: Path) -> None:
    """Indented JSON in a stable order; a row of numbers (the confusion matrix) stays on one line."""
    text = json.dumps(scores, indent=2, allow_nan=False)
    text = re.sub(r"\[\n[\s\d,]+\]", lambda row: "".join(row[0].split()).replace(",", ", "), text)
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(text + "\n", encoding="utf-8")


def _row(item: Item) -> Floats:
    if item.log_probabilities is None:
        raise ValueError(f"Item {item.path!r} has no log-probabilities.")
    return np.asarray(item.log_probabilities, dtype=np.float64)


def _arrays(scored: Sequence[Item], labels: Sequence[str]) -> tuple[Counts, Floats]:
    target_of = {label: target for target, label in enumerate(labels)}
    for item in scored:
        if item.label not in target_of:
            raise ValueError(
                f"Item {item.path!r} has the label {item.label!r}, which is not one of the labels."
            )
        if _row(item).shape != (len(labels),):
            raise ValueError(f"Item {item.path!r} has log-probabilities of shape {_row(item).shape}.")
    targets = np.array([target_of[str(item.label)] for item in scored], dtype=np.int64)
    rows = [_row(item) for item in scored]
    return targets, np.stack(rows) if rows else np.zeros((0, len(labels)))


def _ranks(targets: Counts, log_probabilities: Floats) -> Counts:
    """0 when the truth comes first; the earlier of equal labels comes first, as in `predicted_target`."""
    own = log_probabilities[np.arange(len(targets)), targets][:, None]
    is_earlier = np.arange(log_probabilities.shape[1]) < targets[:, None]
    ranks: Counts = ((log_probabilities > own) | ((log_probabilities == own) & is_earlier)).sum(axis=1)
    return ranks


def _confusion(targets: Counts, predicted: Counts, num_classes: int) -> Counts:
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    return confusion


def _per_class(confusion: Counts, labels: Sequence[str]) -> list[dict[str, Any]]:
    hits, support, claims = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    columns = {  # 0 where nothing could be hit, as sklearn's zero_division=0
        "support": support,
        "precision": hits / np.maximum(claims, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + claims, 1),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"label": label, **dict(zip(columns, row, strict=True))}
        for label, row in zip(labels, rows, strict=True)
    ]


def _macro(per_class: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the classes that have at least one image: the others were not tested."""
    tested = [row for row in per_class if row["support"]]
    means = {name: _mean(np.array([row[name] for row in tested])) for name in ("precision", "recall", "f1")}
    return {**means, "classes": len(tested)}


def _calibration(is_correct: NDArray[np.bool_], confidences: Floats) -> dict[str, Any]:
    """Expected calibration error over equal bins (low, high] of the top-1 confidence."""
    places = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    bins = [
        _bin(place, is_correct[places == place], confidences[places == place]) for place in range(NUM_BINS)
    ]
    gaps = [row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["count"]]
    return {
        "expected_calibration_error": sum(gaps) / len(confidences) if gaps else None,
        "mean_confidence": _mean(confidences),
        "bins": bins,
    }


def _bin(place: int, is_correct: NDArray[np.bool_], confidences: Floats) -> dict[str, Any]:
    return {
        "low": place / NUM_BINS,
        "high": (place + 1) / NUM_BINS,
        "count": len(confidences),
        "confidence": _mean(confidences),
        "accuracy": _mean(is_correct),
    }


def _confused_pairs(confusion: Counts, labels: Sequence[str]) -> list[dict[str, Any]]:
    mistakes = confusion - np.diag(np.diag(confusion))
    places = np.argsort(-mistakes, axis=None, kind="stable")[:NUM_CONFUSED_PAIRS]  # ties: in label order
    pairs = [divmod(int(place), len(labels)) for place in places]
    return [
        {"label": labels[target], "predicted": labels[predicted], "count": int(mistakes[target, predicted])}
        for target, predicted in pairs
        if mistakes[target, predicted]
    ]


def _worst_mistakes(scored: Sequence[Item], labels: Sequence[str]) -> list[dict[str, Any]]:
    wrong = [item for item in scored if labels[predicted_target(_row(item))] != item.label]
    wrong.sort(key=lambda item: (-float(_row(item).max()), item.path))
    return [_mistake(item, labels) for item in wrong[:NUM_WORST_MISTAKES]]


def _mistake(item: Item, labels: Sequence[str]) -> dict[str, Any]:
    probabilities = np.exp(_row(item))
    return {
        "path": item.path,
        "label": item.label,
        "predicted": labels[predicted_target(_row(item))],
        "probability": float(probabilities.max()),
        "probability_of_label": float(probabilities[labels.index(str(item.label))]),
    }


def _compare_item(
    item: Item, labels: Sequence[str], trainer_predictions: Mapping[str, tuple[str, float]]
) -> dict[str, Any]:
    trainer_predicted, trainer_log_probability = trainer_predictions[item.path]
    log_probability = float(_row(item)[labels.index(trainer_predicted)])
    return {
        "path": item.path,
        "label": item.label,
        "predicted": labels[predicted_target(_row(item))],
        "trainer_predicted": trainer_predicted,
        "log_probability_difference": abs(log_probability - trainer_log_probability),
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None
