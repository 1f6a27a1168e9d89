"""Predictions on CPU by OpenVINO: the only file that imports it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from artifact.bundle import Bundle, verify_files
from artifact.predictions import log_softmax
from serving.errors import GraphError
from serving.graph_cache import GraphCache


def native_precisions() -> frozenset[str]:
    """What this processor computes in hardware: fp32, and where it can bf16 and int8.

    OpenVINO lists INT8 for every x86 processor, also without VNNI. Rightly: int8 graphs answer the same there
    to the last bit and are still faster than fp32 (benchmarks/results/quantization_epyc-2core_202611.md).
    """
    return frozenset(
        capability.lower() for capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    )


class OpenVinoPredictor:
    """A compiled graph with one inference request, at which threads take turns."""

    concurrency = 1
    max_batch = 4  # larger ones gain no more, and each picture in one waits for all of it

    def __init__(
        self, bundle: Bundle, *, precision: str, num_threads: int, cache_dir: Path | None = None
    ) -> None:
        self.manifest = bundle.manifest
        self.labels = bundle.manifest.labels
        self.preprocess = bundle.manifest.preprocess
        self.precision = precision
        compiled = _compile(bundle, precision, num_threads, GraphCache(cache_dir), _logits_only)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) RGB -> (N, num_classes) log-probabilities."""
        with self._lock:
            outputs = self._request.infer({0: pixels}, share_inputs=True, share_outputs=True)
            logits = np.array(outputs[0])  # a copy: the next request reuses it
        return np.asarray(log_softmax(logits), dtype=np.float32)


class OpenVinoExplainer(OpenVinoPredictor):
    """Predicts and explains: the last feature map is a second output, the head a graph of its own."""

    def __init__(
        self, bundle: Bundle, *, precision: str, num_threads: int, cache_dir: Path | None = None
    ) -> None:
        self.manifest = bundle.manifest
        self.labels = bundle.manifest.labels
        self.preprocess = bundle.manifest.preprocess
        self.precision = precision
        cache = GraphCache(cache_dir)
        whole, head = (_compile(bundle, precision, num_threads, cache, part) for part in (_whole, _head_only))
        self._request, self._head = whole.create_infer_request(), head.create_infer_request()
        self._lock = threading.Lock()

    def explain(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(crop, crop, 3) RGB -> (num_classes,) log-probabilities and (num_classes, height, width) logits.

        The latter are the head's answers to each place's features alone: class-activation maps.
        """
        with self._lock:
            outputs = self._request.infer({0: pixels[np.newaxis]})
            logits, features = np.array(outputs[0]), np.array(outputs[1][0])  # copies
            channels, height, width = features.shape
            places = features.reshape(channels, height * width).T.reshape(-1, channels, 1, 1)
            maps = np.array(self._head.infer({0: np.ascontiguousarray(places)})[0])
        log_probabilities = np.asarray(log_softmax(logits)[0], dtype=np.float32)
        return log_probabilities, maps.T.reshape(-1, height, width)


def _compile(
    bundle: Bundle,
    precision: str,
    num_threads: int,
    cache: GraphCache,
    part: Callable[[openvino.Model], openvino.Model],
) -> openvino.CompiledModel:
    """A part of the graph for one stream on this processor, from the cache where it was compiled before."""
    chosen = bundle.manifest.precisions[precision]
    files = [chosen.graph, str(Path(chosen.graph).with_suffix(".bin"))]
    verify_files(bundle, files)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": chosen.arithmetic,
        "ENABLE_CPU_PINNING": False,  # each process would pin itself to the same first core
    }
    core = openvino.Core()
    device = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    checksums = [bundle.manifest.files[name] for name in files]
    key = [openvino.__version__, device, options, checksums, part.__name__]
    if blob := cache.read(key):
        with suppress(RuntimeError):  # it is compiled again
            return core.import_model(blob, "CPU", options)
    compiled = core.compile_model(part(_read_graph(bundle, precision)), "CPU", options)
    cache.write(key, compiled.export_model().getvalue())
    return compiled


def _whole(graph: openvino.Model) -> openvino.Model:
    return graph


def _logits_only(graph: openvino.Model) -> openvino.Model:
    """Without the feature map: it would cost a copy, and hinder fusions."""
    return openvino.Model([graph.output(0)], graph.get_parameters())


def _head_only(graph: openvino.Model) -> openvino.Model:
    """From the feature map of one place, (N, channels, 1, 1), to its logits: the average of one is itself."""
    features = graph.output(1).get_node().input(0).get_source_output()
    channels = features.get_partial_shape()[1].get_length()
    place = openvino.op.Parameter(openvino.Type.f32, openvino.PartialShape([-1, channels, 1, 1]))
    for consumer in features.get_target_inputs():
        if consumer.get_node().get_type_name() != "Result":
            consumer.replace_source_output(place.output(0))
    return openvino.Model([graph.output(0)], [place])


def _read_graph(bundle: Bundle, precision: str) -> openvino.Model:
    """The graph, checked against the manifest. Raises GraphError."""
    graph = bundle.manifest.precisions[precision].graph
    path = bundle.path(graph)
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise GraphError(f"{path} is not a graph OpenVINO can load ({reason}); export it again.") from error
    crop, num_classes = bundle.manifest.preprocess.crop, len(bundle.manifest.labels)
    pixels, logits = model.input(0), model.output(0)
    if pixels.get_element_type() != openvino.Type.u8 or not (
        pixels.get_partial_shape().compatible(openvino.PartialShape([-1, crop, crop, 3]))
        and logits.get_partial_shape().compatible(openvino.PartialShape([-1, num_classes]))
    ):
        raise GraphError(
            f"{path} takes {pixels.get_element_type().get_type_name()} {pixels.get_partial_shape()} and "
            f"gives {logits.get_partial_shape()}, but the manifest asks for u8 [?,{crop},{crop},3] and "
            f"[?,{num_classes}]; export it again."
        )
    return model
