"""Small sets of links to the real images, for what would take hours on all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.training.places import SHARED, WORK


def link_subset(data_set: str, name: str, *, classes: int, per_class: dict[str, int]) -> Path:
    """The first `classes` classes of a set, and of each split so many images a class; made anew."""
    root = WORK / "data" / name
    shutil.rmtree(root, ignore_errors=True)
    for split, count in per_class.items():
        for folder in sorted((SHARED / data_set / split).iterdir())[:classes]:
            target = root / split / folder.name
            target.mkdir(parents=True)
            for image in sorted(folder.iterdir())[:count]:
                (target / image.name).symlink_to(image)
    return root


def count_images(folder: Path) -> int:
    """Files in a split."""
    return sum(path.is_file() for path in folder.rglob("*"))
