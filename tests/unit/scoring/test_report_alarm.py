"""When the page says that what was served is not what was trained, and when it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from scoring.columns import tabulate
from scoring.comparison import Record, compare
from scoring.scores import score
from tests.scored_items import ITEMS, LABELS, item, render


def compared(*log_probabilities: float) -> dict[str, Any]:
    """The scores of ITEMS against a record of the same labels at these log-probabilities."""
    predicted = ("damage", "no_damage", "no_damage")
    rows = zip(ITEMS, predicted, log_probabilities, strict=True)
    record = Record(precision="int8", predictions={row.path: (label, at) for row, label, at in rows})
    columns = tabulate(ITEMS, LABELS, recorded=record.predicted)
    return {**score(ITEMS, LABELS), "comparison": compare(columns, record)}


SAME = tuple(float(np.log(probability)) for probability in (0.9, 0.98, 0.7))


def test_healthy_answers_raise_no_alarm(tmp_path: Path) -> None:
    page = render(tmp_path, compared(*(value + 1e-6 for value in SAME)))

    assert "Served is not trained" not in page and "identical" in page


def test_alarm_stands_before_everything_else_and_tells_the_share(tmp_path: Path) -> None:
    page = render(tmp_path, compared(SAME[0], SAME[1] - 0.02, SAME[2]))

    words = re.sub(r"<[^>]+>", "", page[page.index("Served is not trained") :])
    assert "1 of 3 images (33.3\u00a0%" in words and "recorded for int8" in words
    assert page.index("Served is not trained") < page.index("Top-1 accuracy")


def test_answer_that_is_sure_both_times_is_still_told_apart() -> None:
    """Log-probabilities 0.0009 apart are within the tolerance; the odds are not."""
    sure = item("damage/1.jpg", "damage", 0.9995, 0.0005)
    record = Record(precision="fp32", predictions={sure.path: ("damage", float(np.log(0.9986)))})

    comparison = compare(tabulate([sure], LABELS, recorded=record.predicted), record)

    assert comparison["largest_log_probability_difference"] < record.tolerance
    assert comparison["alarm"] is True


def test_near_tie_that_tips_over_is_no_alarm() -> None:
    tie = item("damage/1.jpg", "damage", 0.5001, 0.4999)
    record = Record(precision="fp32", predictions={tie.path: ("no_damage", float(np.log(0.5)))})

    comparison = compare(tabulate([tie], LABELS, recorded=record.predicted), record)

    assert comparison["items_same_prediction"] == 0 and comparison["alarm"] is False
