"""What a search here saves: by one pass over the images for all trials, and by stopping the bad ones early.

    python -m benchmarks.tuning [--quick] [--only features|stopping|recipes]    # ONE line of JSON

`features`: a search of 8 trials of 8 epochs of a frozen ResNet-50 over 1000 dog photos, from an empty cache,
against 8 trainings of the same hyperparameters one after the other, each without kept features.
`stopping`: a search of hurricane-cnn over 12 epochs a trial with early_stopping = "Auto" against the same
trials run to their end. `recipes`: does the search space of each recipe yield a best.toml, with two trials
over few and small images?
Real images are found by KENNEL_SHARED (default ../shared). Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tqdm import tqdm

from examples.shapes import draw_shapes
from training.recipe import read_recipe
from tuning.report import saved_epochs
from tuning.results import Results, read_results

logger = logging.getLogger("benchmarks.tuning")

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data"
SMALL = {"image_size": 64, "resize": 72, "epochs": 2, "pretrained": False, "doctor": "off"}
FROZEN_EPOCHS = 8
UNCACHED = "feature_views=0"  # of training/hyperparameters.py: the backbone runs in every epoch


def main() -> None:
    """Measure, and print one line of JSON."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kennel-tuning-") as folder:
        if options.only in (None, "features"):
            numbers["features"] = measure_features(Path(folder) / "features", quick=options.quick)
        if options.only in (None, "stopping"):
            numbers["stopping"] = measure_stopping(Path(folder) / "stopping", quick=options.quick)
        if options.only in (None, "recipes"):
            numbers["recipes"] = try_recipes(Path(folder) / "recipes")
    print(json.dumps(numbers))


def measure_features(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Seconds of the search and of the independent trainings, and how many times faster it was."""
    images, trials = (100, 3) if quick else (1000, 8)
    data = link_subset(DATA / "dogs", folder / "data", {"train": images * 4 // 5, "valid": images // 5})
    recipe = write_recipe(
        "dogs-resnet50",
        folder / "recipe.toml",
        {"hyperparameters": {"pretrained": False}, "tuning": {"max_jobs": trials}},
    )
    started = time.monotonic()
    epochs = f"epochs={1 if quick else FROZEN_EPOCHS}"
    results = run_search(recipe, data, folder / "search", epochs, cache=folder / "cache")
    search_seconds = time.monotonic() - started
    independent = [
        train_alone(folder / "search" / trial.job / "recipe.toml", data, folder / f"alone-{trial.number}")
        for trial in tqdm(results.trials, unit="training")
    ]
    return {
        "images": images,
        "trials": len(results.trials),
        "epochs": [trial.epochs for trial in results.trials],
        "search_seconds": round(search_seconds, 1),
        "independent_seconds": [round(seconds, 1) for seconds in independent],
        "times_faster": round(sum(independent) / search_seconds, 2),
    }


def measure_stopping(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Epochs that early stopping saved, and what it cost in points of the best objective."""
    images, trials, epochs = (200, 5, 4) if quick else (2000, 12, 12)
    data = link_subset(DATA / "hurricane", folder / "data", {"train": images, "valid": images // 2})
    found = {}
    for early_stopping in ("Off", "Auto"):
        search = {"strategy": "Random", "max_jobs": trials, "early_stopping": early_stopping}
        recipe = write_recipe("hurricane-cnn", folder / f"{early_stopping}.toml", {"tuning": search})
        settings = (f"epochs={epochs}", "image_size=64", "resize=64")
        found[early_stopping] = run_search(recipe, data, folder / early_stopping, *settings)
    full, stopped = found["Off"], found["Auto"]
    assert [trial.parameters for trial in full.trials] == [trial.parameters for trial in stopped.trials]
    assert full.best and stopped.best and full.best.objective and stopped.best.objective
    saved, planned = saved_epochs(stopped)
    return {
        "images": images,
        "trials": trials,
        "epochs_planned": planned,
        "epochs_saved_percent": round(100 * saved / planned, 1),
        "best_full": full.best.objective,
        "best_stopped": stopped.best.objective,
        "points_lost": round(100 * (full.best.objective - stopped.best.objective), 3),
        "seconds_full": round(full.seconds, 1),
        "seconds_stopped": round(stopped.seconds, 1),
    }


def try_recipes(folder: Path) -> dict[str, Any]:
    """Recipe -> the best value of two trials of its search space, each of two epochs at most."""
    found = {}
    for source in sorted((REPOSITORY / "recipes").glob("*.toml")):
        data = folder / "data" / _images_of(source.stem)
        if not data.exists():
            prepare_images(data)
        fixed = [f"{name}={str(value).lower()}" for name, value in SMALL.items()]
        results = run_search(source, data, folder / source.stem, *fixed, max_jobs=2)
        best = read_recipe(folder / source.stem / "best.toml")
        assert results.best and best.hyperparameters.image_size == SMALL["image_size"]
        assert all(
            getattr(best.hyperparameters, name) == value for name, value in results.best.parameters.items()
        )
        found[source.stem] = {results.objective: results.best.objective, **results.best.parameters}
    return found


def prepare_images(data: Path) -> None:
    """A few of each split of dogs or hurricane; or shapes, drawn."""
    if data.name == "shapes":
        draw_shapes(data, seed=1, images_per_class={"train": 32, "valid": 8, "test": 8})
        return
    link_subset(DATA / data.name, data, {"train": 240, "valid": 120})


def _images_of(recipe: str) -> str:
    return next((name for name in ("dogs", "hurricane") if recipe.startswith(name)), "shapes")


def write_recipe(name: str, destination: Path, changes: Mapping[str, Mapping[str, Any]]) -> Path:
    """One of recipes/ with some keys changed."""
    document = tomlkit.parse((REPOSITORY / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))
    for table, values in changes.items():
        for key, value in values.items():
            document[table][key] = value
    destination.write_text(tomlkit.dumps(document), encoding="utf-8")
    return destination


def link_subset(source: Path, destination: Path, counts: Mapping[str, int]) -> Path:
    """A folder of links to so many images of each split, the labels in turn."""
    for split, count in counts.items():
        by_label = [sorted(label.iterdir()) for label in sorted((source / split).iterdir())]
        in_turn = [
            files[place]
            for place in range(max(map(len, by_label)))
            for files in by_label
            if place < len(files)
        ]
        for file in in_turn[:count]:
            link = destination / split / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return destination


def run_search(
    recipe: Path,
    data: Path,
    output: Path,
    *settings: str,
    cache: Path | None = None,
    max_jobs: int | None = None,
) -> Results:
    """`python -m local tune`."""
    more = ["--max-jobs", str(max_jobs)] if max_jobs else []
    _run("tune", recipe, data, output, settings, cache or output / "cache", more)
    return read_results(output)


def train_alone(recipe: Path, data: Path, output: Path) -> float:
    """`python -m local train` with an empty cache and no kept features; seconds."""
    started = time.monotonic()
    _run("train", recipe, data, output, (UNCACHED,), output / "cache")
    return time.monotonic() - started


def _run(
    verb: str,
    recipe: Path,
    data: Path,
    output: Path,
    settings: Sequence[str],
    cache: Path,
    more: Sequence[str] = (),
) -> None:
    command = [sys.executable, "-m", "local", verb, str(recipe), "--data", str(data), "--output", str(output)]
    command += [*(f"--set={setting}" for setting in settings), *more]
    logger.info("%s", " ".join(command[2:]))
    subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "KENNEL_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images and trials: does it run?")
    parser.add_argument("--only", choices=("features", "stopping", "recipes"))
    return parser


if __name__ == "__main__":
    main()
