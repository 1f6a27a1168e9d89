"""The exported OpenVINO graphs: made from a network, saved, and run as the server runs them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openvino
import torch

from artifact.bundle import Precision
from artifact.network import PixelNetwork
from artifact.preprocess import Preprocess
from training.evaluate import Classifier
from training.feature_map import add_feature_map

FP32, INT8 = "openvino/fp32.xml", "openvino/int8.xml"


def build_graph(network: PixelNetwork, preprocess: Preprocess) -> openvino.Model:
    """uint8 (N, crop, crop, 3) -> logits (N, num_classes) and, where there is one, the last feature map."""
    example = torch.zeros((2, preprocess.crop, preprocess.crop, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        # OpenVINO traces with torch.jit, which torch deprecates; architectures warn of traced shapes.
        warnings.simplefilter("ignore")
        # Traced here: OpenVINO would trace twice, to compare; export compares the graph's answers itself.
        traced = torch.jit.trace(network, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape([-1, preprocess.crop, preprocess.crop, 3])
    add_feature_map(graph)
    return graph


def logits_only(graph: openvino.Model) -> openvino.Model:
    """The part of the graph that predicts: the feature map would cost a copy, and hinder fusions."""
    return openvino.Model([graph.output(0)], graph.get_parameters())


def has_feature_map(graph: openvino.Model) -> bool:
    """Whether heat maps can be drawn from it."""
    return len(graph.outputs) > 1


def read_graph(path: Path) -> openvino.Model:
    """A graph of the bundle."""
    return openvino.Core().read_model(path)


def write_graph(graph: openvino.Model, path: Path) -> None:
    """The .xml and its .bin, weights as they are."""
    path.parent.mkdir(exist_ok=True)
    openvino.save_model(graph, path, compress_to_fp16=False)


def graph_classifier(directory: Path, precision: Precision, *, num_threads: int = 0) -> Classifier:
    """A precision of the bundle in `directory` as a classifier; 0 threads are all cores."""
    return compile_graph(
        directory / precision.graph, arithmetic=precision.arithmetic, num_threads=num_threads
    )


def compile_graph(graph: openvino.Model | Path, *, arithmetic: str, num_threads: int = 0) -> Classifier:
    """`arithmetic` is f32 or bf16, as OpenVINO calls them."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": arithmetic,
        "ENABLE_CPU_PINNING": False,
    }
    graph = logits_only(read_graph(graph) if isinstance(graph, Path) else graph)
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    return lambda pixels: np.array(compiled(pixels)[0])


def has_native_bf16() -> bool:
    """Whether this processor multiplies in bf16; elsewhere it would be emulated, slower than float32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
