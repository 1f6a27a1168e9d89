"""A trained network -> the bundle: weights, OpenVINO graphs, golden sample, test predictions, manifest.

The exported graph is compared with the network it came from before anything is called an artifact.
"""

from __future__ import annotations

import io
import logging
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image

from artifact.baseline import Baseline, build_baseline, read_size
from artifact.bundle import (
    WEIGHTS,
    Golden,
    Manifest,
    PrecisionRow,
    TestPrediction,
    write_golden,
    write_manifest,
    write_test_predictions,
)
from artifact.looks import build_looks
from artifact.network import PixelNetwork
from artifact.predictions import log_softmax
from artifact.preprocess import Preprocess, decode_image, decode_pixels
from training.calibrate import build_calibration
from training.data import ImageSet
from training.evaluate import Classifier, Evaluation, evaluate, torch_classifier
from training.graph import FP32, build_graph, graph_classifier, has_feature_map, write_graph
from training.job import JobError
from training.quantize import Samples, describe, measure_precisions, tolerance

logger = logging.getLogger(__name__)

GOLDEN_SIDE = 256  # pixels, of the golden image's shorter side at most
BASELINE_IMAGES = 2000  # of the valid split at most; more would not make the shares of ten bins truer
LIBRARIES = ("numpy", "openvino", "pillow", "torch", "torchvision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training hands over."""

    network: PixelNetwork
    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    golden_body: bytes  # an encoded picture
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    valid_answers: NDArray[np.float64] | None = None  # its log-probabilities, where they are known already


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What the exported graphs themselves were measured to be."""

    test: Evaluation | None  # of fp32
    precision_table: tuple[PrecisionRow, ...]


def export(
    trained: Trained,
    directory: Path,
    *,
    test: ImageSet | None = None,
    valid: ImageSet | None = None,
    samples: Samples | str = "there are no images to measure it on",
) -> Exported:
    """Write the bundle: fp32, and what else `samples` show to be as right and faster (or why there are none).

    `valid` is what the server later compares its traffic with.

    Raises JobError where the graph does not answer as the network does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = trained.network.cpu().float().eval()
    graph = build_graph(network, trained.preprocess)
    write_graph(graph, directory / FP32)
    _check_same(
        network,
        graph_classifier(directory, describe("fp32")),
        decode_pixels(trained.golden_body, trained.preprocess)[None],
        "the golden sample",
    )
    rows = measure_precisions(directory, samples)
    classifiers = {
        row.precision: graph_classifier(directory, describe(row.precision)) for row in rows if row.kept
    }
    golden = _build_golden(trained, classifiers)
    write_golden(directory, golden)
    tensors = {name: tensor.contiguous() for name, tensor in network.network.state_dict().items()}
    (directory / WEIGHTS).write_bytes(safetensors.torch.save(tensors))  # save_file makes it 0600

    metrics = dict(trained.metrics)
    evaluations: dict[str, Evaluation] = {}
    if test is not None:
        evaluations, difference = _evaluate_test(network, classifiers, test)
        metrics["test"] = evaluations["fp32"].metrics() | {"largest_export_difference": difference}
        write_test_predictions(directory, _test_predictions(test, evaluations, trained.labels))
        rows = [_with_test(row, evaluations.get(row.precision)) for row in rows]
    manifest = replace(
        _build_manifest(trained, golden, rows, metrics),
        explanation="cam" if has_feature_map(graph) else "",
        **measure_valid(classifiers["fp32"], valid, trained.valid_answers),
    )
    write_manifest(directory, manifest)
    return Exported(test=evaluations.get("fp32"), precision_table=tuple(rows))


def _evaluate_test(
    network: PixelNetwork, classifiers: Mapping[str, Classifier], test: ImageSet
) -> tuple[dict[str, Evaluation], float]:
    """Of every precision, one image at a time as the server will be asked; and how far the network is off."""
    evaluations = {name: evaluate(classify, test, batch_size=1) for name, classify in classifiers.items()}
    fp32 = evaluations["fp32"]
    return evaluations, _check_same(network, classifiers["fp32"], test.pixels, "the test split", fp32)


def _build_manifest(
    trained: Trained, golden: Golden, rows: Sequence[PrecisionRow], metrics: dict[str, dict[str, float]]
) -> Manifest:
    """What is known before the valid split is looked at."""
    return Manifest(
        architecture=trained.architecture,
        labels=trained.labels,
        preprocess=trained.preprocess,
        precisions={
            name: describe(name, tolerance(name, np.asarray(answer)))
            for name, answer in golden.log_probabilities.items()
        },
        precision_table=tuple(rows),
        metrics=metrics,
        hyperparameters=trained.hyperparameters,
        data=trained.data,
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def measure_valid(
    classify: Classifier, valid: ImageSet | None, answers: NDArray[np.float64] | None
) -> dict[str, Any]:
    """The manifest's entries about the valid split: what its pictures, and the answers to them, are like."""
    if valid is None:
        return {}
    chosen = sample_valid(valid)
    if answers is None:
        batches = [valid.pixels[chosen[start : start + 32]] for start in range(0, len(chosen), 32)]
        log_probabilities = log_softmax(np.concatenate([classify(batch) for batch in batches]))
    else:
        log_probabilities = answers[chosen]
    return {
        "baseline": measure_baseline(valid, chosen, log_probabilities),
        "calibration": build_calibration(log_probabilities, valid.folder.targets[chosen]),
        "looks": build_looks(valid.pixels[chosen]),
    }


def sample_valid(valid: ImageSet) -> NDArray[np.int64]:
    """Indices into the valid split; of a large one every k-th image (it is sorted)."""
    return np.arange(0, len(valid), math.ceil(len(valid) / BASELINE_IMAGES))


def measure_baseline(
    valid: ImageSet, chosen: NDArray[np.int64], log_probabilities: NDArray[np.float64]
) -> Baseline:
    """The images `chosen` of the valid split as the server would see them."""
    sizes = [read_size((valid.folder.root / valid.folder.paths[index]).read_bytes()) for index in chosen]
    return build_baseline(valid.pixels[chosen], log_probabilities, sizes)


def read_golden_body(path: Path) -> bytes:
    """A picture as a small PNG, upright: what PNG stores every machine decodes alike."""
    image = decode_image(path.read_bytes())
    shrink = min(1.0, GOLDEN_SIDE / min(image.size))
    return _encode_png(image.resize([max(1, round(side * shrink)) for side in image.size]))


def draw_golden_body(side: int) -> bytes:
    """A drawn picture, for a model that comes without data: colour gradients and rings."""
    y, x = np.mgrid[0:side, 0:side] / side
    rings = 0.5 + 0.5 * np.sin(40 * np.hypot(x - 0.4, y - 0.6))
    return _encode_png(Image.fromarray((255 * np.stack([x, y, rings], axis=2)).astype(np.uint8)))


def _build_golden(trained: Trained, classifiers: Mapping[str, Classifier]) -> Golden:
    pixels = decode_pixels(trained.golden_body, trained.preprocess)[None]
    return Golden(
        body=trained.golden_body,
        log_probabilities={
            name: log_softmax(classify(pixels))[0].tolist() for name, classify in classifiers.items()
        },
    )


def _with_test(row: PrecisionRow, evaluation: Evaluation | None) -> PrecisionRow:
    return replace(row, test_top1_accuracy=evaluation.top1_accuracy) if evaluation else row


def _check_same(
    network: PixelNetwork,
    classify: Classifier,
    pixels: NDArray[np.uint8],
    what: str,
    evaluation: Evaluation | None = None,
) -> float:
    """The largest |difference| of a log-probability. Raises JobError when it is over its tolerance."""
    eager = torch_classifier(network, device=torch.device("cpu"), bf16=False)
    batches = [pixels[start : start + 32] for start in range(0, len(pixels), 32)]
    expected = log_softmax(np.concatenate([eager(batch) for batch in batches]))
    answered = evaluation.log_probabilities if evaluation else log_softmax(classify(pixels))
    difference = float(np.abs(expected - answered).max())
    allowed = tolerance("fp32", expected)
    if not difference <= allowed:  # also catches NaN
        raise JobError(
            f"The exported graph answers differently from the network on {what}: log-probabilities differ by "
            f"up to {difference:.2g}, allowed {allowed:.2g}. Please report this architecture."
        )
    return difference


def _test_predictions(
    test: ImageSet, evaluations: Mapping[str, Evaluation], labels: tuple[str, ...]
) -> list[TestPrediction]:
    return [
        TestPrediction(
            path=path,
            label=labels[target],
            precision=precision,
            predicted=labels[int(row.argmax())],
            log_probability=float(row.max()),
        )
        for precision, evaluation in evaluations.items()
        for path, target, row in zip(
            test.folder.paths, test.folder.targets, evaluation.log_probabilities, strict=True
        )
    ]


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
