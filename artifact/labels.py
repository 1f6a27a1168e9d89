"""Class names in target order: target 0 is the first label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple. Raises ValueError for fewer than two, an empty one, or one given twice."""
    if len(labels) < 2:
        raise ValueError(f"A classifier needs at least two labels; got {list(labels)}.")
    seen: set[str] = set()
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"Label {label!r} is empty or not text.")
        if label in seen:
            raise ValueError(f"Label {label!r} is given twice.")
        seen.add(label)
    return tuple(labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """A JSON list, or text with a label a line, in target order. Raises ValueError naming the file."""
    text = path.read_text(encoding="utf-8")
    try:
        labels = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line]
        if not isinstance(labels, list):
            raise ValueError(f"expected a list, found {type(labels).__name__}")
        return check_labels(labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
