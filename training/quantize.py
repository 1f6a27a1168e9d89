"""Faster precisions of the exported graph, each kept only where it is as right as fp32 and really faster.

bf16 is the fp32 graph computed in another arithmetic; int8 is a graph of its own, made by NNCF's
post-training quantization from a few hundred training images.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Precision, PrecisionRow
from training.data import ImageSet
from training.evaluate import Classifier, Evaluation, evaluate
from training.feature_map import add_feature_map
from training.graph import (
    FP32,
    INT8,
    graph_classifier,
    has_native_bf16,
    logits_only,
    read_graph,
    write_graph,
)

logger = logging.getLogger(__name__)

MAX_TOP1_DROP = 0.005  # on the valid split, against the fp32 graph
MIN_SPEEDUP = 1.3  # less is not worth another set of answers
CALIBRATION_IMAGES = 300
TIMING_SECONDS = 3.0
TIMING_ROUNDS = (20, 200)  # at least, for a quartile; at most

# Log-probabilities recorded here and answered by another processor: absolute, and relative to the largest.
# float32: sums in another order differ by about 1e-6 of the logits' size. The others, measured on 500 tiles
# with OpenVINO held to older instructions (ONEDNN_MAX_CPU_ISA), log-probabilities down to -7.9: bf16 native
# against emulated differs by up to 0.003. int8 with VNNI, without it and on AVX2 is equal to the last bit, as
# `_quantize` says, but on other hardware a float32 sum before a quantizer may fall on a step's other side.
TOLERANCES = {"fp32": (1e-3, 1e-4), "bf16": (0.05, 0.01), "int8": (0.05, 0.01)}
ARITHMETIC = {
    "fp32": (FP32, "f32"),
    "bf16": (FP32, "bf16"),
    # What is not quantized stays float32: in bf16 ResNet-18 and -50 and the cnn were no faster (1.00 x to
    # 1.02 x), and answers would differ between processors with and without bf16.
    "int8": (INT8, "f32"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The images that decide about a precision."""

    calibration: NDArray[np.uint8]  # (num_images, crop, crop, 3) of the train split
    valid: ImageSet


def tolerance(precision: str, log_probabilities: NDArray[np.float64]) -> float:
    """Largest |difference| of a log-probability between network and graph, or graph and server."""
    absolute, relative = TOLERANCES[precision]
    return max(absolute, relative * float(np.abs(log_probabilities).max()))


def choose_calibration(train: ImageSet, *, crop: int, seed: int) -> NDArray[np.uint8]:
    """Some CALIBRATION_IMAGES of the train split, drawn by `seed`, cropped to the centre as in evaluation."""
    chosen = np.random.default_rng(seed).permutation(len(train))[:CALIBRATION_IMAGES]
    start = round((train.pixels.shape[1] - crop) / 2)
    return np.ascontiguousarray(train.pixels[np.sort(chosen), start : start + crop, start : start + crop])


def refusal(*, top1_drop: float, speedup: float) -> str:
    """Why a measured precision is not kept; empty where it is."""
    if not top1_drop <= MAX_TOP1_DROP + 1e-9:  # 0.5 points are allowed though 0.9 - 0.895 is a bit more
        return f"top-1 falls by {100 * top1_drop:.2f} points, allowed {100 * MAX_TOP1_DROP:g}"
    if not speedup >= MIN_SPEEDUP:
        return f"{speedup:.2f} times as fast as fp32, wanted {MIN_SPEEDUP:g}"
    return ""


def measure_precisions(directory: Path, samples: Samples | str) -> list[PrecisionRow]:
    """A row per precision, fp32 first; leaves openvino/int8.xml in the bundle only if int8 is kept.

    `samples` may be the reason why there are none; then fp32 alone is kept.
    """
    if isinstance(samples, str):
        refused = [_unmeasured(precision, samples) for precision in ("bf16", "int8")]
        rows = [PrecisionRow(precision="fp32", kept=True, reason="the reference"), *refused]
    else:
        rows = _measure(directory, samples)
    for row in rows:
        logger.info("%s", " ".join(f"{name}={value}" for name, value in _described(row).items()))
    return rows


def _measure(directory: Path, samples: Samples) -> list[PrecisionRow]:
    unusable = {} if has_native_bf16() else {"bf16": "this processor does not compute in bf16"}
    started = time.monotonic()
    logger.info("quantizing to int8: calibration_images=%d", len(samples.calibration))
    if reason := _quantize(directory, samples.calibration):
        unusable["int8"] = reason
    usable = [name for name in ARITHMETIC if name not in unusable]
    logger.info(
        "quantizing: seconds=%.1f, now measuring %s on %d valid images",
        time.monotonic() - started,
        " ".join(usable),
        len(samples.valid),
    )
    evaluations = {
        name: evaluate(graph_classifier(directory, describe(name)), samples.valid, batch_size=32)
        for name in usable
    }
    latencies = measure_latencies(
        # As the server computes by default: one thread for each worker.
        {name: graph_classifier(directory, describe(name), num_threads=1) for name in usable},
        samples.valid.pixels,
    )
    rows = [_row(name, evaluations, latencies) for name in usable]
    if not any(row.kept for row in rows if row.precision == "int8"):
        for suffix in (".xml", ".bin"):
            (directory / INT8).with_suffix(suffix).unlink(missing_ok=True)
    return rows + [_unmeasured(name, reason) for name, reason in unusable.items()]


def describe(precision: str, tolerance: float = 0.0) -> Precision:
    """The manifest's entry."""
    graph, arithmetic = ARITHMETIC[precision]
    return Precision(graph=graph, arithmetic=arithmetic, tolerance=tolerance)


def measure_latencies(
    classifiers: Mapping[str, Classifier], images: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    """Seconds per image, (num_rounds,) each; in turn, so that other load on the machine meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in classifiers}
    least, most = TIMING_ROUNDS
    deadline = time.monotonic() + TIMING_SECONDS
    for classify in classifiers.values():
        classify(images[:1])  # the first call also allocates
    for index in itertools.islice(itertools.count(), most):
        image = images[index % len(images)][None]
        for name, classify in classifiers.items():
            started = time.perf_counter()
            classify(image)
            seconds[name].append(time.perf_counter() - started)
        if index + 1 >= least and time.monotonic() > deadline:
            break
    return {name: np.array(values) for name, values in seconds.items()}


def _row(
    name: str, evaluations: Mapping[str, Evaluation], latencies: Mapping[str, NDArray[np.float64]]
) -> PrecisionRow:
    evaluation, reference = evaluations[name], evaluations["fp32"]
    same = evaluation.log_probabilities.argmax(axis=1) == reference.log_probabilities.argmax(axis=1)
    # Lower quartiles: whatever else runs on the machine only ever adds time, and more to the slower one.
    latency, fp32_latency = (float(np.quantile(latencies[which], 0.25)) for which in (name, "fp32"))
    reason = "the reference"
    if name != "fp32":
        reason = refusal(
            top1_drop=reference.top1_accuracy - evaluation.top1_accuracy,
            speedup=fp32_latency / latency,
        )
    return PrecisionRow(
        precision=name,
        kept=name == "fp32" or not reason,
        reason=reason or "as right as fp32, and faster",
        top1_accuracy=evaluation.top1_accuracy,
        agreement=float(same.mean()),
        speedup=fp32_latency / latency,
        latency_ms=1000 * latency,
    )


def _unmeasured(precision: str, reason: str) -> PrecisionRow:
    return PrecisionRow(precision=precision, kept=False, reason=reason)


def _described(row: PrecisionRow) -> dict[str, str]:
    measured = {
        name: f"{getattr(row, name):.4g}"
        for name in ("top1_accuracy", "agreement", "speedup", "latency_ms")
        if getattr(row, name) is not None
    }
    kept = str(row.kept).lower()
    return {"precision": row.precision, "kept": kept, **measured, "reason": repr(row.reason)}


def _quantize(directory: Path, calibration: NDArray[np.uint8]) -> str:
    """Write the int8 graph; where NNCF cannot, answer why: a trained network is not lost over that."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it draws progress on stdout
        warnings.simplefilter("ignore")  # it wraps parts of torch that are deprecated
        import nncf  # seconds: only a job that quantizes pays them
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        nncf.set_log_level(logging.ERROR)
        try:
            graph = nncf.quantize(
                logits_only(read_graph(directory / FP32)),  # a second output would move quantizers
                nncf.Dataset([image[None] for image in calibration]),
                subset_size=len(calibration),
                # 7-bit weights: without VNNI a sum of two products saturates at 16 bits. With NNCF's default
                # (the first layer only) answers differed by up to 0.16 between processors; so they are equal.
                advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
            )
        except (RuntimeError, ValueError, nncf.InternalError, nncf.UnsupportedModelError) as error:
            return f"NNCF cannot quantize this graph ({type(error).__name__}: {error})"
    add_feature_map(graph)
    write_graph(graph, directory / INT8)
    return ""
