"""How many of 20 planted wrong labels are among the doctor's first 40 suspects, on hurricane tiles.

    python -m benchmarks.doctor_mislabelled --artifact build/hurricane-cnn/model.tar.gz > result.json
    python -m benchmarks.doctor_mislabelled --folds 5 --epochs 6      # the train split, out of fold; an hour

Labels are planted in valid and test, which the model has not learnt from. The first trial is the whole way: a
copy with 20 files moved to the other folder, examined and ranked. A probability does not depend on the folder
a file lies in, so the other trials plant in the facts alone. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.doctor.files import UNREADABLE, FileFacts, examine, list_files
from training.doctor.findings import HELD_OUT
from training.doctor.mislabelled import find_suspects, open_artifact, predict_files, rank_suspects
from training.doctor.suspects import Suspect

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_PLANTED, NUM_FIRST, WANTED = 20, 40, 18
LABELS = ("damage", "no_damage")


def main() -> None:
    """Held-out splits with a trained artifact, or the train split by folds."""
    options = _parser().parse_args()
    data = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data" / "hurricane"
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kennel-doctor-") as scratch:
        if options.folds:
            measured = measure_folds(data, Path(scratch), folds=options.folds, epochs=options.epochs)
        else:
            measured = measure_held_out(data, Path(scratch), options.artifact, trials=options.trials)
    document = {
        "benchmark": "doctor_mislabelled",
        "planted": NUM_PLANTED,
        "first": NUM_FIRST,
        "seconds": round(time.monotonic() - started, 1),
        **measured,
    }
    print(json.dumps(document))


def measure_held_out(data: Path, scratch: Path, artifact: Path, *, trials: int) -> dict[str, Any]:
    """valid, test, and both together as the doctor ranks them."""
    planted = copy_with_planted(data, scratch / "copy")
    suspects = find_suspects(examine(scratch / "copy"), scratch / "copy", artifact)
    facts = [
        replace(UNREADABLE, path=path, split=split, label=label)
        for path, split, label in list_files(data)
        if split in HELD_OUT
    ]
    with open_artifact(artifact) as bundle:
        probabilities = predict_files(bundle, data, [fact.path for fact in facts])
        labels, epochs = bundle.manifest.labels, bundle.manifest.hyperparameters.get("epochs")
        metrics = bundle.manifest.metrics
    results = {}
    for splits in (("test",), ("valid",), HELD_OUT):
        rows = [row for row, fact in enumerate(facts) if fact.split in splits]
        chosen, theirs = [facts[row] for row in rows], probabilities[rows]
        found = [found_among_first(chosen, theirs, labels, seed=seed) for seed in range(trials)]
        results["+".join(splits)] = {"images": len(rows), **summarise(found)}
    return {
        "epochs": epochs,
        "top1_accuracy": {split: metrics[split]["top1_accuracy"] for split in HELD_OUT if split in metrics},
        "whole_way": {"planted_in": "valid+test", "found": count_found(suspects, planted)},
        "trials": trials,
        "held_out": results,
    }


def copy_with_planted(data: Path, copy: Path) -> set[str]:
    """A copy of the set, 20 of its held-out files moved to the other label; their new paths."""
    shutil.copytree(data, copy)
    held_out = [path for path, split, _ in list_files(copy) if split in HELD_OUT]
    planted = set()
    for number, place in enumerate(
        np.random.default_rng(0).choice(len(held_out), NUM_PLANTED, replace=False)
    ):
        split, label, _ = held_out[place].split("/")
        moved = f"{split}/{other_label(label)}/planted-{number}.jpeg"  # names are coordinates and collide
        (copy / held_out[place]).rename(copy / moved)
        planted.add(moved)
    return planted


def found_among_first(
    facts: Sequence[FileFacts], probabilities: NDArray[np.float64], labels: Sequence[str], *, seed: int
) -> int:
    """Plant 20 wrong labels at random, rank, count."""
    chosen = np.random.default_rng(seed).choice(len(facts), NUM_PLANTED, replace=False).tolist()
    filed = list(facts)
    for place in chosen:
        filed[place] = replace(facts[place], label=other_label(facts[place].label))
    suspects = rank_suspects(filed, probabilities, labels)
    return count_found(suspects, {facts[place].path for place in chosen})


def count_found(suspects: Sequence[Suspect], planted: set[str]) -> int:
    """How many of the first 40 are planted."""
    return len({suspect.path for suspect in suspects[:NUM_FIRST]} & planted)


def other_label(label: str) -> str:
    """Of two."""
    return LABELS[1 - LABELS.index(label)]


def summarise(found: Sequence[int]) -> dict[str, float]:
    """Mean and worst over the trials, and how many reach what is wanted."""
    reached = float(np.mean([count >= WANTED for count in found]))
    return {"mean": float(np.mean(found)), "min": min(found), f"trials_with_{WANTED}_or_more": reached}


def measure_folds(data: Path, scratch: Path, *, folds: int, epochs: int) -> dict[str, Any]:
    """The train split with planted labels in place while networks are trained: nothing is held back."""
    files = [(path, label) for path, split, label in list_files(data) if split == "train"]
    random = np.random.default_rng(0)
    planted = set(random.choice(len(files), NUM_PLANTED, replace=False).tolist())
    facts = [
        replace(UNREADABLE, path=path, split="train", label=other_label(label) if row in planted else label)
        for row, (path, label) in enumerate(files)
    ]
    fold_of = random.permutation(np.arange(len(files)) % folds)
    probabilities = np.zeros((len(files), len(LABELS)))
    for fold in range(folds):
        artifact = train_without(fold, facts, fold_of, data, scratch / f"fold-{fold}", epochs=epochs)
        rows = np.flatnonzero(fold_of == fold)
        with open_artifact(artifact) as bundle:
            probabilities[rows] = predict_files(bundle, data, [files[row][0] for row in rows])
    truth = np.array([LABELS.index(label) for _, label in files])
    suspects = rank_suspects(facts, probabilities, LABELS)
    return {
        "folds": folds,
        "epochs": epochs,
        "out_of_fold_accuracy": float((probabilities.argmax(axis=1) == truth).mean()),
        "train": {"images": len(files), "found": count_found(suspects, {files[row][0] for row in planted})},
    }


def train_without(
    fold: int, facts: Sequence[FileFacts], fold_of: NDArray[Any], data: Path, folder: Path, *, epochs: int
) -> Path:
    """An artifact trained on every other fold, under the labels as filed."""
    for row, fact in enumerate(facts):
        if fold_of[row] != fold:
            link = folder / "data/train" / fact.label / f"{row}.jpeg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(data.resolve() / fact.path)
    command = ("train", "recipes/hurricane-cnn.toml", "--data", str(folder / "data"), "--output", str(folder))
    subprocess.run(
        [sys.executable, "-m", "local", *command, f"--set=epochs={epochs}"],
        cwd=REPOSITORY,
        stdout=sys.stderr,
        check=True,
    )
    return folder / "model.tar.gz"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.doctor_mislabelled",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--artifact", type=Path, default=REPOSITORY / "build/hurricane-cnn/model.tar.gz")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--folds", type=int, default=0, help="train this many networks on the train split")
    parser.add_argument("--epochs", type=int, default=6, help="of each of them")
    return parser


if __name__ == "__main__":
    main()
