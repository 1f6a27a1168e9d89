"""The artifacts that everyone serves: trained for a minute on a few real images, and kept under build/bench.

Only speed is measured, so the weights need not be good; but int8 has to pass the accuracy gate, as for
anyone who serves it. With most of the images in one class the few steps find that class, and int8 agrees.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from artifact.bundle import BundleError, open_bundle
from benchmarks.serving.places import SHARED, WORK
from local.platform import REPOSITORY

logger = logging.getLogger(__name__)

NETWORKS = ("resnet18", "resnet50", "densenet121")
PRECISION = "int8"
SEEDS = range(3)  # so small a training may miss the gate by one picture
# Images of the first class and of each other one.
IMAGES_PER_CLASS = {"train": (96, 12), "valid": (15, 5), "test": (4, 1)}
SETTINGS = (
    "image_size=224",
    "resize=256",
    "epochs=1",
    "batch_size=16",
    "learning_rate=0.005",
    "augmentation=photo",
    "doctor=off",
)


class ArtifactError(RuntimeError):
    """There is no artifact to measure; the message says why."""


def prepare_artifact(network: str) -> Path:
    """The unpacked bundle of `network`, trained first where it is absent. Raises ArtifactError."""
    output = WORK / "artifacts" / network
    for seed in SEEDS:
        if is_usable(output / "model"):
            break
        logger.info("training %s once for the benchmark (seed %d): some minutes", network, seed)
        _train(network, output, seed)
    if not is_usable(output / "model"):
        raise ArtifactError(
            f"{network}: {PRECISION} did not pass the export's gate in {len(SEEDS)} trainings; why is in "
            f"{output / 'model' / 'manifest.json'}. Run again, on a quieter machine if it was too slow."
        )
    return output / "model"


def is_usable(model_dir: Path) -> bool:
    """Whether there is a whole bundle with the int8 graph."""
    try:
        return PRECISION in open_bundle(model_dir).manifest.precisions
    except BundleError:
        return False


def _train(network: str, output: Path, seed: int) -> None:
    shutil.rmtree(output, ignore_errors=True)
    data = _link_images()
    command = [sys.executable, "-m", "local", "train", str(REPOSITORY / "recipes" / "hurricane-cnn.toml")]
    command += ["--data", str(data), "--output", str(output)]
    for setting in (f"architecture={network}", f"seed={seed}", *SETTINGS):
        command += ["--set", setting]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, env=os.environ, check=False)
    if done.returncode != 0:
        raise ArtifactError(f"{network}: the training ended with exit code {done.returncode} (see above).")


def _link_images() -> Path:
    """A folder of links to a few images of `woof`, mostly of the first breed."""
    source = SHARED / "data" / "woof"
    if not source.is_dir():
        raise ArtifactError(f"The real images are absent: {source} (set KENNEL_SHARED).")
    folder = WORK / "images"
    shutil.rmtree(folder, ignore_errors=True)
    for split, (first, others) in IMAGES_PER_CLASS.items():
        for index, label in enumerate(sorted(path for path in (source / split).iterdir() if path.is_dir())):
            (folder / split / label.name).mkdir(parents=True)
            for image in sorted(label.iterdir())[: others if index else first]:
                (folder / split / label.name / image.name).symlink_to(image.resolve())
    return folder
