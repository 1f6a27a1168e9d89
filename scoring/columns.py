"""Items as columns: about 150 bytes each whatever the number of labels, so that a million fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scoring.items import Item

CHUNK = 2048  # rows of log-probabilities that are looked at together
UNKNOWN = -1

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Columns:
    """What the scores need of every answered item, and the failed ones."""

    labels: tuple[str, ...]
    paths: list[str]  # (N,)
    targets: Counts  # (N,) UNKNOWN where the truth is
    predicted: Counts  # (N,)
    ranks: Counts  # (N,) of the truth, 0 where it comes first; UNKNOWN
    log_confidence: Floats  # (N,) of the prediction
    log_truth: Floats  # (N,) of the truth; NaN where it is unknown
    log_recorded: Floats  # (N,) of the label that the trainer recorded; NaN where there is none
    failed: list[tuple[str, str | None, str]]  # (path, label, why)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(N,) where the truth is known."""
        known: NDArray[np.bool_] = self.targets != UNKNOWN
        return known

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(N,)"""
        right: NDArray[np.bool_] = self.targets == self.predicted
        return right


@dataclass(slots=True)
class _Chunk:
    """Rows on their way to columns."""

    paths: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float64]] = field(default_factory=list)


def tabulate(items: Iterable[Item], labels: Sequence[str], *, recorded: Mapping[str, str] = {}) -> Columns:
    """One pass over `items`; `recorded` is the trainer's prediction by path.

    Raises ValueError for a label that is not one of `labels` and for a row of another length.
    """
    target_of = {label: target for target, label in enumerate(labels)}
    paths: list[str] = []
    parts: list[dict[str, NDArray[np.float64]]] = []
    failed: list[tuple[str, str | None, str]] = []
    chunk = _Chunk()
    for item in items:
        if item.label is not None and item.label not in target_of:
            raise ValueError(
                f"Item {item.path!r} has the label {item.label!r}, which is not one of the labels."
            )
        if not is_answered(item):
            failed.append((item.path, item.label, item.error or "not finite"))
            continue
        row = _row(item)
        if row.shape != (len(labels),):
            raise ValueError(f"Item {item.path!r} has log-probabilities of shape {row.shape}.")
        chunk.paths.append(item.path)
        chunk.targets.append(UNKNOWN if item.label is None else target_of[item.label])
        chunk.recorded.append(target_of.get(recorded.get(item.path, ""), UNKNOWN))
        chunk.rows.append(row)
        if len(chunk.rows) == CHUNK:
            parts.append(_measure(chunk))
            paths += chunk.paths
            chunk = _Chunk()
    parts.append(_measure(chunk) if chunk.rows else _measure_none(len(labels)))
    return _build(tuple(labels), paths + chunk.paths, parts, failed)


def is_answered(item: Item) -> bool:
    """False as well for a network that diverged: its NaN would make every mean a NaN."""
    return item.log_probabilities is not None and bool(np.isfinite(item.log_probabilities).all())


def _row(item: Item) -> Floats:
    return np.asarray(item.log_probabilities, dtype=np.float64)


def _measure(chunk: _Chunk) -> dict[str, NDArray[np.float64]]:
    return _measure_rows(np.stack(chunk.rows), np.array(chunk.targets), np.array(chunk.recorded))


def _measure_none(num_classes: int) -> dict[str, NDArray[np.float64]]:
    nobody = np.zeros(0, dtype=np.int64)
    return _measure_rows(np.zeros((0, num_classes)), nobody, nobody)


def _measure_rows(rows: Floats, targets: Counts, recorded: Counts) -> dict[str, NDArray[np.float64]]:
    """One column per measure of (N, num_classes) log-probabilities."""
    places = np.arange(len(rows))
    predicted = rows.argmax(axis=1) if rows.size else np.zeros(len(rows), dtype=np.int64)
    log_truth = rows[places, targets]
    # The earlier of equal labels comes first, as in argmax.
    is_earlier = np.arange(rows.shape[1]) < targets[:, None]
    ahead = (rows > log_truth[:, None]) | ((rows == log_truth[:, None]) & is_earlier)
    return {
        "targets": targets,
        "predicted": predicted,
        "ranks": np.where(targets == UNKNOWN, UNKNOWN, ahead.sum(axis=1)),
        "log_confidence": rows[places, predicted],
        "log_truth": np.where(targets == UNKNOWN, np.nan, log_truth),
        "log_recorded": np.where(recorded == UNKNOWN, np.nan, rows[places, recorded]),
    }


def _build(
    labels: tuple[str, ...],
    paths: list[str],
    parts: Sequence[Mapping[str, NDArray[np.float64]]],
    failed: list[tuple[str, str | None, str]],
) -> Columns:
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    counts = {name: whole[name].astype(np.int64) for name in ("targets", "predicted", "ranks")}
    return Columns(
        labels=labels,
        paths=paths,
        failed=failed,
        log_confidence=whole["log_confidence"],
        log_truth=whole["log_truth"],
        log_recorded=whole["log_recorded"],
        **counts,
    )
