"""Can the probabilities be believed? Expected calibration error, risk kept, and strangers told apart.

    python -m benchmarks.calibration ARTIFACT TEST [--strangers FOLDER ...]

ARTIFACT is an unpacked model.tar.gz, TEST an ImageFolder of its labels, a stranger's folder any pictures. The
expected calibration error is over 15 bins of equal width (Guo et al. 2017), before the temperature and after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from artifact.bundle import Manifest, open_bundle
from artifact.calibration import Calibration
from artifact.looks import Looks
from artifact.preprocess import Preprocess, decode_pixels
from serving.abstaining import STRANGE
from serving.handler import Predictor, model_fn

BINS = 15
RISKS = (0.01, 0.02, 0.05, 0.1)
MAX_IMAGES = 2000  # of a folder, evenly spread


def calibration_error(log_probabilities: NDArray[Any], targets: NDArray[np.int64]) -> float:
    """Mean |confidence - accuracy| over BINS bins of confidence, each by its share of the images."""
    confidences = np.exp(log_probabilities.max(axis=1))
    is_right = log_probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidences - is_right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(targets))


def area_under_curve(usual: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """The chance that a stranger's score is above a usual picture's (AUROC)."""
    return float(mannwhitneyu(strange, usual).statistic / (len(usual) * len(strange)))


def keep_risks(
    calibration: Calibration, rows: NDArray[Any], targets: NDArray[np.int64]
) -> list[dict[str, float]]:
    """What `abstain=RISK` gives on these images: the share answered and the share of errors among those."""
    confidences, is_wrong = np.exp(rows.max(axis=1)), rows.argmax(axis=1) != targets
    kept = []
    for risk in RISKS:
        answered = confidences >= calibration.least_confidence(risk)
        errors = float(is_wrong[answered].mean()) if answered.any() else 0.0
        kept.append({"risk": risk, "answered": float(answered.mean()), "errors": errors})
    return kept


def predict_folder(
    paths: list[Path], predictor: Predictor, preprocess: Preprocess, looks: Looks
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(N, num_classes) log-probabilities and (N,) rarities."""
    rows, rarities = [], []
    for path in paths:
        pixels = decode_pixels(path.read_bytes(), preprocess)
        rows.append(predictor.predict(pixels[np.newaxis])[0])
        rarities.append(looks.rarity(pixels))
    return np.stack(rows), np.array(rarities)


def choose(folder: Path) -> list[Path]:
    """At most MAX_IMAGES of its files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return paths[:: max(1, len(paths) // MAX_IMAGES)][:MAX_IMAGES]


def measure(manifest: Manifest, predictor: Predictor, test: Path, strangers: list[Path]) -> dict[str, Any]:
    """The figures. Raises SystemExit where the artifact has no calibration."""
    calibration, looks = manifest.calibration, manifest.looks
    if calibration is None or looks is None:
        raise SystemExit("The artifact was exported without a calibration: train again with a valid split.")
    paths = choose(test)
    targets = np.array([manifest.labels.index(path.parent.name) for path in paths])
    rows, rarities = predict_folder(paths, predictor, manifest.preprocess, looks)
    calibrated = calibration.calibrate(rows)
    found = {
        folder: predict_folder(choose(folder), predictor, manifest.preprocess, looks) for folder in strangers
    }
    return {
        "architecture": manifest.architecture,
        "precision": predictor.precision,
        "images": len(paths),
        "top1_accuracy": float((rows.argmax(axis=1) == targets).mean()),
        "temperature": calibration.temperature,
        "calibration_error_before": calibration_error(rows, targets),
        "calibration_error": calibration_error(calibrated, targets),
        "abstaining": keep_risks(calibration, calibrated, targets),
        "called_strange": float((rarities > STRANGE).mean()),
        "strangers": {
            f"{folder.parent.name}/{folder.name}": {
                "auroc_of_looks": area_under_curve(rarities, strange),
                "auroc_of_confidence": area_under_curve(-rows.max(axis=1), -strange_rows.max(axis=1)),
                "called_strange": float((strange > STRANGE).mean()),
            }
            for folder, (strange_rows, strange) in found.items()
        },
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--strangers", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    manifest = open_bundle(arguments.artifact).manifest
    figures = measure(manifest, model_fn(arguments.artifact), arguments.test, arguments.strangers)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
