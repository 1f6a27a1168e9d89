"""Does transfer help? A backbone trained on 110 dog breeds against random weights, on 10 other breeds.

    python -m benchmarks.transfer [--seeds 5] [--pretraining-epochs 20] [--epochs 10] [--image-size 128]

The ten breeds of woof are left out of dogs by name. Both networks are fine-tuned alike on woof/train, once
for each seed, as real jobs. The margin is the mean difference of test accuracy, with a 95 % interval from
resampling seeds and test images together. Hours on two cores; jobs that are done are not repeated. The last
line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import read_test_predictions
from benchmarks.training.places import SHARED, WORK
from local.platform import REPOSITORY

logger = logging.getLogger(__name__)

RECIPE = "recipes/dogs-resnet18.toml"
SETTINGS = {
    "pretrained": "false",
    "freeze_backbone": "false",
    "label_smoothing": "0.1",
    "warmup_epochs": "1",
    "learning_rate": "0.05",
    "quantize": "off",
    "doctor": "off",
}
FINE_TUNING = {"learning_rate": "0.02"}
RESAMPLINGS = 10_000


def main() -> None:
    """Train what is not there yet, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=110, help="fewer, to try it out")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    work = (
        WORK
        / f"transfer-{options.classes}-{options.pretraining_epochs}-{options.epochs}-{options.image_size}"
    )
    size = {"image_size": str(options.image_size)}
    others = link_other_breeds(work / "data", options.classes)
    backbone = train(work / "backbone", others, SETTINGS | size | {"epochs": str(options.pretraining_epochs)})
    hits: dict[str, list[NDArray[np.bool_]]] = {"transferred": [], "random": []}
    for seed in range(options.seeds):
        settings = SETTINGS | FINE_TUNING | size | {"epochs": str(options.epochs), "seed": str(seed)}
        for start, weights in (("transferred", backbone), ("random", None)):
            train(work / f"{start}-{seed}", SHARED / "woof", settings, weights)
            hits[start].append(read_hits(work / f"{start}-{seed}"))
    print(json.dumps(compare(np.array(hits["transferred"]), np.array(hits["random"]))))


def link_other_breeds(folder: Path, classes: int) -> Path:
    """dogs without woof's breeds, as links to its class folders; made anew."""
    left_out = {path.name for path in (SHARED / "woof" / "train").iterdir()}
    shutil.rmtree(folder, ignore_errors=True)
    for split in ("train", "valid"):
        (folder / split).mkdir(parents=True)
        breeds = sorted(path for path in (SHARED / "dogs" / split).iterdir() if path.name not in left_out)
        for breed in breeds[:classes]:
            (folder / split / breed.name).symlink_to(breed)
    return folder


def train(output: Path, data: Path, settings: dict[str, str], weights: Path | None = None) -> Path:
    """The job's weights file; a job that has one is not run again."""
    trained = output / "model" / "weights.safetensors"
    if not (output / "model.tar.gz").is_file():
        pairs = [f"--set={name}={value}" for name, value in settings.items()]
        command = [
            sys.executable,
            "-m",
            "local",
            "train",
            RECIPE,
            "--data",
            str(data),
            "--output",
            str(output),
        ]
        logger.info("training %s", output.name)
        subprocess.run(
            [*command, *pairs, *(["--weights", str(weights)] if weights else [])],
            cwd=REPOSITORY,
            stdout=sys.stderr,
            check=True,
        )
    return trained


def read_hits(output: Path) -> NDArray[np.bool_]:
    """(num_images,) in the order of their paths: whether the fp32 prediction was right."""
    rows = sorted(read_test_predictions(output / "model"), key=lambda row: row.path)
    return np.array([row.predicted == row.label for row in rows if row.precision == "fp32"])


def compare(transferred: NDArray[np.bool_], random: NDArray[np.bool_]) -> dict[str, Any]:
    """(seeds, images) each -> accuracies and the margin with its interval."""
    difference = transferred.astype(float) - random.astype(float)
    draws = np.random.default_rng(0)
    seeds, images = difference.shape
    margins = [
        difference[draws.integers(0, seeds, seeds)][:, draws.integers(0, images, images)].mean()
        for _ in range(RESAMPLINGS)
    ]
    low, high = np.quantile(margins, [0.025, 0.975])
    return {
        "transferred_top1_accuracy": float(transferred.mean()),
        "random_top1_accuracy": float(random.mean()),
        "margin": float(difference.mean()),
        "margin_interval": [float(low), float(high)],
        "seeds": seeds,
        "test_images": images,
    }


if __name__ == "__main__":
    main()
