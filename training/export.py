"""A trained network -> the bundle: weights, OpenVINO graph, golden sample, test predictions, manifest.

The exported graph is compared with the network it came from before anything is called an artifact.
"""

from __future__ import annotations

import io
import logging
import platform
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image

from artifact.bundle import (
    WEIGHTS,
    Golden,
    Manifest,
    Precision,
    TestPrediction,
    write_golden,
    write_manifest,
    write_test_predictions,
)
from artifact.network import PixelNetwork
from artifact.predictions import log_softmax
from artifact.preprocess import Preprocess, decode_image, decode_pixels
from training.data import ImageSet
from training.evaluate import Classifier, Evaluation, evaluate, torch_classifier
from training.job import JobError

logger = logging.getLogger(__name__)

# Float32 sums in another order differ by about 1e-6 of the logits' size.
ABSOLUTE_TOLERANCE = 1e-3
RELATIVE_TOLERANCE = 1e-4
GOLDEN_SIDE = 256  # pixels, of the golden image's shorter side at most
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


def export(trained: Trained, directory: Path, *, test: ImageSet | None = None) -> Evaluation | None:
    """Write the bundle and return the exported graph's own evaluation on the test split.

    Raises JobError where the graph does not answer as the network does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = trained.network.cpu().float().eval()
    graph_path = directory / "openvino" / "fp32.xml"
    graph_path.parent.mkdir(exist_ok=True)
    openvino.save_model(build_graph(network, trained.preprocess), graph_path, compress_to_fp16=False)
    classify = graph_classifier(graph_path)

    golden = _build_golden(trained, classify)
    _check_same(network, classify, decode_pixels(golden.body, trained.preprocess)[None], "the golden sample")
    write_golden(directory, golden)
    tolerance = fp32_tolerance(np.asarray(golden.log_probabilities["fp32"]))
    tensors = {name: tensor.contiguous() for name, tensor in network.network.state_dict().items()}
    (directory / WEIGHTS).write_bytes(safetensors.torch.save(tensors))  # save_file makes it 0600

    metrics = dict(trained.metrics)
    evaluation = None
    if test is not None:
        # One image at a time, as the server will be asked.
        evaluation = evaluate(classify, test, batch_size=1)
        difference = _check_same(network, classify, test.pixels, "the test split", evaluation)
        metrics["test"] = evaluation.metrics() | {"largest_export_difference": difference}
        write_test_predictions(directory, _test_predictions(test, evaluation, trained.labels))
    write_manifest(
        directory,
        Manifest(
            architecture=trained.architecture,
            labels=trained.labels,
            preprocess=trained.preprocess,
            precisions={"fp32": Precision(graph="openvino/fp32.xml", tolerance=tolerance)},
            metrics=metrics,
            hyperparameters=trained.hyperparameters,
            data=trained.data,
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    return evaluation


def build_graph(network: PixelNetwork, preprocess: Preprocess) -> openvino.Model:
    """uint8 (N, crop, crop, 3) -> logits (N, num_classes); N may vary."""
    example = torch.zeros((2, preprocess.crop, preprocess.crop, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        # OpenVINO traces with torch.jit, which torch deprecates; architectures warn of traced shapes.
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(network, example_input=example)
    graph.reshape([-1, preprocess.crop, preprocess.crop, 3])
    return graph


def graph_classifier(path: Path) -> Classifier:
    """An exported graph as a classifier, in float32 on all cores."""
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: np.array(compiled(pixels)[0])


def fp32_tolerance(log_probabilities: NDArray[np.float64]) -> float:
    """Largest |difference| of a log-probability between network and graph, or graph and server."""
    return max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * float(np.abs(log_probabilities).max()))


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


def _build_golden(trained: Trained, classify: Classifier) -> Golden:
    pixels = decode_pixels(trained.golden_body, trained.preprocess)[None]
    return Golden(
        body=trained.golden_body, log_probabilities={"fp32": log_softmax(classify(pixels))[0].tolist()}
    )


def _check_same(
    network: PixelNetwork,
    classify: Classifier,
    pixels: NDArray[np.uint8],
    what: str,
    evaluation: Evaluation | None = None,
) -> float:
    """The largest |difference| of a log-probability. Raises JobError when it is over `fp32_tolerance`."""
    eager = torch_classifier(network, device=torch.device("cpu"), bf16=False)
    batches = [pixels[start : start + 32] for start in range(0, len(pixels), 32)]
    expected = log_softmax(np.concatenate([eager(batch) for batch in batches]))
    answered = evaluation.log_probabilities if evaluation else log_softmax(classify(pixels))
    difference = float(np.abs(expected - answered).max())
    allowed = fp32_tolerance(expected)
    if not difference <= allowed:  # also catches NaN
        raise JobError(
            f"The exported graph answers differently from the network on {what}: log-probabilities differ by "
            f"up to {difference:.2g}, allowed {allowed:.2g}. Please report this architecture."
        )
    return difference


def _test_predictions(
    test: ImageSet, evaluation: Evaluation, labels: tuple[str, ...]
) -> list[TestPrediction]:
    predicted = evaluation.log_probabilities.argmax(axis=1)
    return [
        TestPrediction(
            path=path,
            label=labels[target],
            precision="fp32",
            predicted=labels[best],
            log_probability=float(row[best]),
        )
        for path, target, best, row in zip(
            test.folder.paths, test.folder.targets, predicted, evaluation.log_probabilities, strict=True
        )
    ]


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
