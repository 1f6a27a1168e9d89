"""Three items of two labels, scored, and the page that tells of them, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scoring.items import Item
from scoring.report import write_report

LABELS = ("damage", "no_damage")


def item(path: str, label: str | None, *probabilities: float) -> Item:
    return Item(path=path, label=label, log_probabilities=np.log(np.array(probabilities)))


ITEMS = (
    item("damage/1.jpg", "damage", 0.9, 0.1),
    item("damage/2.jpg", "damage", 0.02, 0.98),
    item("no_damage/1.jpg", "no_damage", 0.3, 0.7),
)


def render(tmp_path: Path, scores: dict[str, Any], **options: Any) -> str:
    destination = tmp_path / "page" / "report.html"
    write_report(scores, destination, **{"title": "A test", "images_dir": None, **options})
    return destination.read_text(encoding="utf-8")
