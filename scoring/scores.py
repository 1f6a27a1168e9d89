"""The numbers: accuracy with its interval, per-class scores, calibration, mistakes, the gain of abstaining.

Everything returned is ready for JSON; what cannot be computed is None, never NaN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.abstaining import measure_abstaining
from scoring.columns import Columns, Counts, Floats, tabulate
from scoring.items import Item
from scoring.joining import Oddities
from scoring.proportions import proportion

NUM_BINS = 15
NUM_WORST_MISTAKES = 24
NUM_CONFUSED_PAIRS = 20
NUM_EXAMPLES = 4  # pictures of each confused pair
MOST_LISTED = 10_000  # of each kind of trouble; items.csv lists all


def score(items: Iterable[Item], labels: Sequence[str]) -> dict[str, Any]:
    """Every number about `items`, in one pass."""
    return score_columns(tabulate(items, labels))


def score_columns(columns: Columns, oddities: Oddities | None = None) -> dict[str, Any]:
    """Every number; failed items are listed, and count as wrong in `top1_accuracy_all` only."""
    labels, scored = columns.labels, np.flatnonzero(columns.scored)
    targets, predicted = columns.targets[scored], columns.predicted[scored]
    is_correct, confidences = targets == predicted, np.exp(columns.log_confidence[scored])
    confusion = _confusion(targets, predicted, len(labels))
    correct, count = int(is_correct.sum()), len(scored)
    per_class = _per_class(confusion, labels)
    failed_known = sum(label is not None for _, label, _ in columns.failed)
    wrong = scored[~is_correct]
    odd = oddities or Oddities()
    return {
        "labels": list(labels),
        "counts": {
            "items": len(columns.paths) + len(columns.failed),
            "scored": count,
            "unlabelled": len(columns.paths) - count,
            "failed": len(columns.failed),
            "renamed": len(odd.renamed),
            "duplicated": len(odd.duplicated),
            "unexpected": len(odd.unexpected),
        },
        "top1_accuracy": proportion(correct, count),
        "top1_accuracy_all": proportion(correct, count + failed_known),
        "top5_accuracy": proportion(int((columns.ranks[scored] < 5).sum()), count),
        "loss": _mean(-columns.log_truth[scored]),
        "macro": _macro(per_class),
        "calibration": _calibration(is_correct, confidences),
        "abstaining": measure_abstaining(is_correct, confidences),
        "per_class": per_class,
        "confused_pairs": _confused_pairs(confusion, columns, wrong),
        "worst_mistakes": _worst_mistakes(columns, wrong),
        "confusion_matrix": confusion.tolist(),  # rows: truth, columns: prediction, both in label order
        "missing_or_failed": [
            {"path": path, "error": error} for path, _, error in columns.failed[:MOST_LISTED]
        ],
        "renamed": [{"path": path, "output": output} for path, output in odd.renamed[:MOST_LISTED]],
        "duplicated": [{"path": path, "output": output} for path, output in odd.duplicated[:MOST_LISTED]],
        "unexpected": [{"output": output, "error": why} for output, why in odd.unexpected[:MOST_LISTED]],
    }


def write_scores(scores: Mapping[str, Any], destination: Path) -> None:
    """Indented JSON in a stable order; a row of numbers (the confusion matrix) stays on one line."""
    text = json.dumps(scores, indent=2, allow_nan=False)
    text = re.sub(r"\[\n[\s\d,]+\]", lambda row: "".join(row[0].split()).replace(",", ", "), text)
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(text + "\n", encoding="utf-8")


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


def _confused_pairs(confusion: Counts, columns: Columns, wrong: Counts) -> list[dict[str, Any]]:
    """The most frequent first, ties in label order; with the surest of their images as examples."""
    labels, mistakes = columns.labels, confusion - np.diag(np.diag(confusion))
    places = np.argsort(-mistakes, axis=None, kind="stable")[:NUM_CONFUSED_PAIRS]
    pairs = [divmod(int(place), len(labels)) for place in places]
    return [
        {
            "label": labels[target],
            "predicted": labels[predicted],
            "count": int(mistakes[target, predicted]),
            "examples": _surest(
                columns,
                wrong[(columns.targets[wrong] == target) & (columns.predicted[wrong] == predicted)],
                NUM_EXAMPLES,
            ),
        }
        for target, predicted in pairs
        if mistakes[target, predicted]
    ]


def _surest(columns: Columns, places: Counts, limit: int) -> list[str]:
    return [columns.paths[place] for place in _by_confidence(columns, places)[:limit]]


def _by_confidence(columns: Columns, places: Counts) -> list[int]:
    """The surest first, ties by path."""
    return sorted(
        (int(place) for place in places),
        key=lambda place: (-columns.log_confidence[place], columns.paths[place]),
    )


def _worst_mistakes(columns: Columns, wrong: Counts) -> list[dict[str, Any]]:
    return [
        {
            "path": columns.paths[place],
            "label": columns.labels[columns.targets[place]],
            "predicted": columns.labels[columns.predicted[place]],
            "probability": float(np.exp(columns.log_confidence[place])),
            "probability_of_label": float(np.exp(columns.log_truth[place])),
        }
        for place in _by_confidence(columns, wrong)[:NUM_WORST_MISTAKES]
    ]


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None
