"""What the jobs transform: the real test splits, repeated under new keys until they last."""

from __future__ import annotations

import base64
import itertools
import json
import random
import shutil
from pathlib import Path

from benchmarks.serving.places import SHARED

# Name -> splits. Every picture differs, so that nothing is measured on one picture's size.
SETS = {"dogs": ("woof/test", "dogs/test"), "hurricane": ("hurricane/test",)}


def list_pictures(name: str) -> list[Path]:
    """The set's JPEGs in a fixed random order. Raises FileNotFoundError where the real images are absent."""
    folders = [SHARED / "data" / split for split in SETS[name]]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"The real images are absent: {folder} (set KENNEL_SHARED).")
    paths = sorted(path for folder in folders for path in folder.rglob("*.jp*g"))
    random.Random(0).shuffle(paths)
    return paths


def link_objects(pictures: list[Path], folder: Path, count: int) -> Path:
    """`count` objects, one picture each: the set over and over, each time under keys of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, path in enumerate(itertools.islice(itertools.cycle(pictures), count)):
        (folder / f"{index:06d}-{path.parent.name}.jpg").symlink_to(path.resolve())
    return folder


def write_lines(pictures: list[Path], path: Path, count: int) -> Path:
    """One object of `count` JSON lines, a base64 picture each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        for picture in itertools.islice(itertools.cycle(pictures), count):
            file.write(json.dumps(base64.b64encode(picture.read_bytes()).decode()) + "\n")
    return path
