"""Scoring streams: memory grows by a few hundred bytes a prediction, not by its log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scoring import measure

FEW, MANY = 5_000, 25_000


@pytest.mark.parametrize("form", ["lines", "files"])
def test_twenty_thousand_predictions_take_little_memory(tmp_path: Path, form: str) -> None:
    num_classes = 100  # 800 bytes of float64 a prediction, and its JSON as much again
    few = measure(tmp_path / "few", FEW, num_classes, form)

    many = measure(tmp_path / "many", MANY, num_classes, form)

    # 700 bytes a prediction, and 6 MB for what does not depend on their number: a million stay below 1 GB.
    assert float(many["peak_rss_mb"]) - float(few["peak_rss_mb"]) < 20_000 * 700 / 2**20 + 6
