"""Everything about a transform job's outputs: joined, scored, compared, written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scoring.columns import tabulate
from scoring.comparison import Record, compare
from scoring.items import Item
from scoring.joining import Oddities, Truth, join
from scoring.report import write_report
from scoring.scores import score_columns, write_scores
from scoring.tables import write_items, write_per_class


def score_job(
    outputs: Path,
    truth: Truth,
    labels: Sequence[str],
    *,
    destination: Path,
    title: str,
    record: Record | None = None,
    images_dir: Path | None = None,
    facts: Mapping[str, str] = {},
    watch: Callable[[Iterable[Item]], Iterable[Item]] = iter,
) -> dict[str, Any]:
    """The scores, also in `destination` as report.html, scores.json, items.csv and per_class.csv.

    `watch` sees the items pass, for a progress bar; there may be a million.
    """
    oddities = Oddities()
    items = watch(join(truth, outputs, labels, oddities))
    columns = tabulate(items, labels, recorded=record.predicted if record else {})
    scores = score_columns(columns, oddities)
    if record is not None:
        scores["comparison"] = compare(columns, record)
        facts = {"precision": record.precision, **facts}
    destination.mkdir(parents=True, exist_ok=True)
    write_scores(scores, destination / "scores.json")
    write_items(columns, oddities, destination / "items.csv")
    write_per_class(scores, destination / "per_class.csv")
    write_report(scores, destination / "report.html", title=title, images_dir=images_dir, facts=facts)
    return scores
