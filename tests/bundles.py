"""Small real artifacts for tests: a seeded torch network, its OpenVINO graph, golden answer and manifest."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save

from artifact.bundle import WEIGHTS, Golden, Manifest, Precision, write_golden, write_manifest
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess, decode_pixels
from training.export import Trained, export

LABELS = ("beagle", "dingo", "samoyed", "borzoi", "papillon", "dhole", "whippet", "vizsla")


class TinyNetwork(torch.nn.Module):
    """uint8 (N, crop, crop, 3) RGB -> logits (N, num_classes); normalisation is its first layer."""

    def __init__(self, num_classes: int, preprocess: Preprocess) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, kernel_size=3, stride=2)
        self.head = torch.nn.Linear(8, num_classes)
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255.0)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise, convolve, pool, classify."""
        normalised = (pixels.permute(0, 3, 1, 2).float() - self.get_buffer("mean")) / self.get_buffer("std")
        features = torch.relu(self.convolution(normalised)).amax(dim=(2, 3))
        logits: torch.Tensor = self.head(features)
        return logits


def make_tiny_bundle(directory: Path, *, num_classes: int = 3, crop: int = 32) -> Path:
    """A whole artifact in `directory`, which is made and returned."""
    preprocess = Preprocess(resize=crop, crop=crop)
    torch.manual_seed(0)
    network = TinyNetwork(num_classes, preprocess).eval()
    (directory / "openvino").mkdir(parents=True)
    openvino.save_model(
        convert_network(network, crop), directory / "openvino/fp32.xml", compress_to_fp16=False
    )
    (directory / WEIGHTS).write_bytes(save(network.state_dict()))
    body = encode_picture("PNG")
    log_probabilities = predict_with_torch(network, decode_pixels(body, preprocess))
    write_golden(directory, Golden(body=body, log_probabilities={"fp32": log_probabilities}))
    write_manifest(
        directory,
        Manifest(
            architecture="tiny",
            labels=LABELS[:num_classes],
            preprocess=preprocess,
            precisions={"fp32": Precision(graph="openvino/fp32.xml", tolerance=1e-4)},
        ),
    )
    return directory


def make_cnn_bundle(directory: Path, *, labels: tuple[str, ...] = LABELS, crop: int = 64) -> Path:
    """An artifact by the trainer's own export, of untrained weights; its graph can be explained."""
    preprocess = Preprocess(resize=crop, crop=crop)
    torch.manual_seed(0)
    trained = Trained(
        network=PixelNetwork(build_network("cnn", len(labels)), preprocess),
        architecture="cnn",
        labels=labels,
        preprocess=preprocess,
        golden_body=encode_picture("PNG"),
    )
    export(trained, directory)
    return directory


def convert_network(network: torch.nn.Module, crop: int) -> openvino.Model:
    """The network as an OpenVINO graph with a dynamic batch."""
    example = torch.zeros(1, crop, crop, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace, which OpenVINO uses, is deprecated
        return openvino.convert_model(network, example_input=example, input=[-1, crop, crop, 3])


def predict_with_torch(network: torch.nn.Module, pixels: NDArray[np.uint8]) -> list[float]:
    """One picture's log-probabilities, as training would record them."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels.copy())[None])
    answer: list[float] = torch.log_softmax(logits, dim=1)[0].tolist()
    return answer


def draw_picture(*, width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Six soft patches: they survive JPEG, and no two sides are alike, so that rotation shows."""
    patches = np.random.default_rng(seed).integers(0, 256, size=(2, 3, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BILINEAR)


def encode_picture(image_format: str, *, seed: int = 0) -> bytes:
    """A drawn picture as the bytes of a file."""
    buffer = io.BytesIO()
    draw_picture(seed=seed).save(buffer, image_format)
    return buffer.getvalue()
