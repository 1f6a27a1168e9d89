"""The scores as CSV, for a spreadsheet: items.csv with a row per image and oddity, per_class.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scoring.columns import UNKNOWN, Columns
from scoring.joining import Oddities

ITEM_COLUMNS = ("path", "status", "label", "predicted", "probability", "rank", "remark")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so


def write_items(columns: Columns, oddities: Oddities, destination: Path) -> None:
    """Every image and every output that could not be joined, none left out; `rank` of the truth is from 1."""
    with destination.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(ITEM_COLUMNS)
        writer.writerows([_plain(cell) for cell in row] for row in _rows(columns, oddities))


def write_per_class(scores: Mapping[str, Any], destination: Path) -> None:
    """Precision, recall and F1 of every label."""
    names = ("label", "support", "precision", "recall", "f1")
    with destination.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_plain(row[name]) for name in names] for row in scores["per_class"])


def _rows(columns: Columns, oddities: Oddities) -> Iterator[tuple[Any, ...]]:
    renamed = dict(oddities.renamed)
    for place, path in enumerate(columns.paths):
        target, predicted = int(columns.targets[place]), int(columns.predicted[place])
        status = "unlabelled" if target == UNKNOWN else "right" if target == predicted else "wrong"
        yield (
            path,
            status,
            "" if target == UNKNOWN else columns.labels[target],
            columns.labels[predicted],
            f"{np.exp(columns.log_confidence[place]):.6f}",
            "" if target == UNKNOWN else int(columns.ranks[place]) + 1,
            f"answered as {renamed[path]}" if path in renamed else "",
        )
    for path, label, error in columns.failed:
        yield path, "failed", label or "", "", "", "", error
    for path, output in oddities.duplicated:
        yield path, "duplicated", "", "", "", "", f"answered again in {output}"
    for output, why in oddities.unexpected:
        yield output, "unexpected", "", "", "", "", why


def _plain(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
