"""The served-is-not-trained alarm: each answer against what the trainer recorded for the same precision."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import TEST_PREDICTIONS, Bundle
from scoring.columns import UNKNOWN, Columns
from scoring.proportions import paired_p_value, proportion

NUM_DISAGREEMENTS = 20
DEFAULT_TOLERANCE = 1e-3
# Odds are compared with at least this probability against: float32 cannot tell 0.9999999 from 1.
SMALLEST_DOUBT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the trainer recorded of one precision on its test split."""

    precision: str
    predictions: Mapping[str, tuple[str, float]]  # path -> (label, log-probability)
    top1_accuracy: float | None = None
    tolerance: float = DEFAULT_TOLERANCE  # how far a sound server's answer may lie from the recorded one

    @property
    def predicted(self) -> dict[str, str]:
        """Path -> label."""
        return {path: label for path, (label, _) in self.predictions.items()}


def read_record(bundle: Bundle, precision: str) -> Record:
    """Of the precision that is served; no predictions where the trainer had no test split."""
    manifest = bundle.manifest
    rows = [row for row in manifest.precision_table if row.precision == precision]
    measured = [row.test_top1_accuracy for row in rows if row.test_top1_accuracy is not None]
    if not measured and precision == "fp32" and "top1_accuracy" in manifest.metrics.get("test", {}):
        measured = [manifest.metrics["test"]["top1_accuracy"]]
    known = manifest.precisions.get(precision)
    return Record(
        precision=precision,
        predictions=_read_predictions(bundle.path(TEST_PREDICTIONS), precision),
        top1_accuracy=measured[0] if measured else None,
        tolerance=known.tolerance if known else DEFAULT_TOLERANCE,
    )


def compare(columns: Columns, record: Record) -> dict[str, Any]:
    """Item by item; `columns` were tabulated with `record.predicted`.

    An item is affected when the log-odds of the trainer's label lie farther apart than the tolerance:
    rounding moves them alike little at any confidence, and a near tie that tips over by itself is no alarm.
    """
    places = np.flatnonzero(np.isfinite(columns.log_recorded))
    recorded = [record.predictions[columns.paths[place]] for place in places]
    target_of = {label: target for target, label in enumerate(columns.labels)}
    then = np.array([target_of[label] for label, _ in recorded], dtype=np.int64)
    log_then = np.array([value for _, value in recorded], dtype=np.float64)
    log_now, now = columns.log_recorded[places], columns.predicted[places]
    is_affected = np.abs(_log_odds(log_now) - _log_odds(log_then)) > record.tolerance
    differences = np.abs(log_now - log_then)
    is_other = now != then
    scored = columns.scored
    correct, count = int(columns.is_right[scored].sum()), int(scored.sum())
    accuracy = correct / count if count else None
    shown = _worst(is_other, is_affected, differences)
    is_same_set = {columns.paths[place] for place in np.flatnonzero(scored)} == record.predictions.keys()
    return {
        "precision": record.precision,
        "tolerance": record.tolerance,
        "alarm": bool(is_affected.any()),
        "affected": proportion(int(is_affected.sum()), len(places)),
        "top1_accuracy": accuracy,
        "trainer_top1_accuracy": record.top1_accuracy,
        "top1_difference": _difference(accuracy, record.top1_accuracy) if is_same_set else None,
        "paired": _pair(columns.targets[places], now, then),
        "items_compared": len(places),
        "items_same_prediction": len(places) - int(is_other.sum()),
        "not_in_trainer_test_set": len(columns.paths) - len(places),
        "trainer_items_without_answer": len(record.predictions) - len(places),
        "largest_log_probability_difference": float(differences.max()) if len(places) else None,
        "median_log_probability_difference": float(np.median(differences)) if len(places) else None,
        "disagreements": _list(columns, places, now, then, differences, shown),
    }


def alarm_words(comparison: Mapping[str, Any]) -> str:
    """One sentence for a log; empty where there is nothing to raise an alarm about."""
    if not comparison["alarm"]:
        return ""
    affected = comparison["affected"]
    return (
        f"served != trained: {affected['correct']} of {affected['count']} answers "
        f"({100 * affected['value']:.1f} %) are not what the trainer recorded for {comparison['precision']}"
    )


def _log_odds(log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    doubts = np.maximum(-np.expm1(np.minimum(log_probabilities, 0.0)), SMALLEST_DOUBT)
    log_odds: NDArray[np.float64] = log_probabilities - np.log(doubts)
    return log_odds


def _difference(accuracy: float | None, trainer_accuracy: float | None) -> float | None:
    return None if accuracy is None or trainer_accuracy is None else accuracy - trainer_accuracy


def _pair(targets: NDArray[np.int64], now: NDArray[np.int64], then: NDArray[np.int64]) -> dict[str, Any]:
    """How often only one of both was right, among the items whose truth is known."""
    known = targets != UNKNOWN
    right_now, right_then = (now == targets)[known], (then == targets)[known]
    only_now, only_then = int((right_now & ~right_then).sum()), int((right_then & ~right_now).sum())
    return {
        "items": int(known.sum()),
        "only_served_right": only_now,
        "only_trainer_right": only_then,
        "p_value": paired_p_value(only_now, only_then),
    }


def _list(
    columns: Columns,
    places: NDArray[np.int64],
    now: NDArray[np.int64],
    then: NDArray[np.int64],
    differences: NDArray[np.float64],
    chosen: list[int],
) -> list[dict[str, Any]]:
    return [
        {
            "path": columns.paths[places[i]],
            "label": _label(columns, int(places[i])),
            "predicted": columns.labels[now[i]],
            "trainer_predicted": columns.labels[then[i]],
            "log_probability_difference": float(differences[i]),
        }
        for i in chosen
    ]


def _worst(
    is_other: NDArray[np.bool_], is_affected: NDArray[np.bool_], differences: NDArray[np.float64]
) -> list[int]:
    """Other labels first, then the largest differences."""
    shown = np.flatnonzero(is_other | is_affected)
    order = np.lexsort((-differences[shown], ~is_other[shown]))
    return [int(place) for place in shown[order][:NUM_DISAGREEMENTS]]


def _label(columns: Columns, place: int) -> str | None:
    target = int(columns.targets[place])
    return None if target == UNKNOWN else columns.labels[target]


def _read_predictions(file: Path, precision: str) -> dict[str, tuple[str, float]]:
    """Only one precision's rows are kept: there may be three times as many."""
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as rows:
        return {
            row["path"]: (row["predicted"], float(row["log_probability"]))
            for row in csv.DictReader(rows)
            if row["precision"] == precision
        }
