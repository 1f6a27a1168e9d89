"""The stages by their SageMaker names: model_fn once, then input_fn, predict_fn, output_fn per request."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Bundle, Manifest, open_bundle, read_golden
from artifact.preprocess import (
    MAX_PIXELS,
    ImageTooLargeError,
    Preprocess,
    UnreadableImageError,
    decode_pixels,
)
from serving.codec import (
    check_content_type,
    parse_accept,
    parse_custom_attributes,
    parse_top,
    rank_labels,
)
from serving.errors import GoldenMismatch, ImageTooLarge, RequestError, SettingsError, UnreadableImage
from serving.messages import CUSTOM_ATTRIBUTES, JSON, Answer, Query, encode_json, error_answer, refusal_answer
from serving.settings import AUTO

logger = logging.getLogger(__name__)


class Predictor(Protocol):
    """A loaded model."""

    labels: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    concurrency: int  # threads that may call predict at once and gain by it

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) uint8 RGB -> (N, num_classes) log-probabilities."""


def model_fn(
    model_dir: Path,
    *,
    engine: str = "openvino",
    precision: str = AUTO,
    num_threads: int = 1,
    cache_dir: Path | None = None,
) -> Predictor:
    """A bundle in a warm engine that gave the golden answer; the files it needs are verified on the way.

    Raises BundleError or StartError.
    """
    bundle = open_bundle(model_dir)
    predictor = _load(bundle, engine, precision, num_threads, cache_dir)
    # Also the warm-up: OpenVINO's binding can deadlock when a process's first inferences run concurrently.
    check_golden_answer(predictor, bundle)
    return predictor


def respond(query: Query, predictor: Predictor, *, max_pixels: int = MAX_PIXELS) -> Answer:
    """The answer to one request, whatever comes: the client's fault is a 4xx, ours a 500 told in the log."""
    try:
        return _predict(query, predictor, max_pixels)
    except RequestError as error:
        logger.info("event=refused status=%d code=%s", error.status, error.code)
        return refusal_answer(error)
    except Exception as error:  # the last handler: the traceback goes to the log and not to the client
        logger.error("event=failed", exc_info=error)
        return error_answer(
            500,
            "internal_error",
            "The server failed on this request.",
            "The traceback is in the container's log.",
        )


def _predict(query: Query, predictor: Predictor, max_pixels: int) -> Answer:
    accept, top = parse_accept(query.accept)
    attributes = parse_custom_attributes(query.custom_attributes)
    if "top" in attributes:
        top = parse_top(attributes["top"])
    pixels = input_fn(query.body, query.content_type, predictor, max_pixels=max_pixels)
    log_probabilities = predict_fn(pixels, predictor)
    body, content_type = output_fn(log_probabilities, accept, predictor.labels, top)
    headers = {"Content-Type": content_type}
    if "top" in attributes:
        headers[CUSTOM_ATTRIBUTES] = f"top={top}"
    return Answer(200, headers, body)


def input_fn(
    body: bytes, content_type: str | None, predictor: Predictor, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """One encoded picture -> (1, crop, crop, 3) uint8 RGB. Raises RequestError."""
    check_content_type(content_type)
    hint = "Send the bytes of one whole JPEG, PNG or WebP file as the body."
    if not body:
        raise UnreadableImage("The body is empty.", hint=hint)
    try:
        return decode_pixels(body, predictor.preprocess, max_pixels=max_pixels)[np.newaxis]
    except ImageTooLargeError as error:
        raise ImageTooLarge(str(error), hint="Shrink it first; the limit is KENNEL_MAX_PIXELS.") from error
    except UnreadableImageError as error:
        raise UnreadableImage(str(error), hint=hint) from error


def predict_fn(pixels: NDArray[np.uint8], predictor: Predictor) -> NDArray[np.float32]:
    """(1, crop, crop, 3) -> (1, num_classes) log-probabilities."""
    return predictor.predict(pixels)


def output_fn(
    log_probabilities: NDArray[np.float32], accept: str, labels: Sequence[str], top: int | None
) -> tuple[bytes, str]:
    """The body and its content type: every log-probability in label order, or the `top` likeliest labels."""
    assert accept == JSON, accept  # codec.parse_accept offers nothing else yet
    if top is None:
        return encode_json(log_probabilities.tolist()), JSON
    return encode_json({"predictions": rank_labels(log_probabilities[0], labels, limit=top)}), JSON


def _load(bundle: Bundle, engine: str, wanted: str, num_threads: int, cache_dir: Path | None) -> Predictor:
    """Imports here: no image has both libraries."""
    if engine == "torch":
        from serving import engine_torch

        precision = choose_precision(bundle.manifest, wanted, native=engine_torch.native_precisions())
        return engine_torch.TorchPredictor(bundle, precision=precision, num_threads=num_threads)
    from serving import engine_openvino

    precision = choose_precision(bundle.manifest, wanted, native=engine_openvino.native_precisions())
    return engine_openvino.OpenVinoPredictor(
        bundle, precision=precision, num_threads=num_threads, cache_dir=cache_dir
    )


def choose_precision(manifest: Manifest, wanted: str, *, native: Collection[str]) -> str:
    """The precision to serve. Raises SettingsError with the choice.

    auto is the fastest that the trainer kept and this processor computes natively, else the manifest's first.
    """
    offered = list(manifest.precisions)
    if wanted == AUTO and offered:
        speedups = {
            row.precision: row.speedup or 0.0
            for row in manifest.precision_table
            if row.kept and row.precision in offered and row.precision in native
        }
        return max(speedups, key=speedups.__getitem__, default=offered[0])
    if wanted not in offered:
        raise SettingsError(
            f"KENNEL_PRECISION={wanted!r} is not in the artifact; set it to {' or '.join([AUTO, *offered])}."
        )
    return wanted


def check_golden_answer(predictor: Predictor, bundle: Bundle) -> None:
    """Predict the golden picture as a request would. Raises GoldenMismatch."""
    golden = read_golden(bundle)
    recorded = np.array(golden.log_probabilities.get(predictor.precision, []), dtype=np.float64)
    answered = predict_fn(input_fn(golden.body, "image/png", predictor), predictor)[0]
    if recorded.shape != answered.shape:
        raise GoldenMismatch(
            f"golden.json records {recorded.size} log-probabilities for {predictor.precision} and the graph "
            f"gives {answered.size}; export the model again."
        )
    tolerance = bundle.manifest.precisions[predictor.precision].tolerance
    difference = float(np.abs(answered - recorded).max())
    if not difference <= tolerance:  # NaN is a mismatch too
        raise GoldenMismatch(
            f"The {predictor.precision} graph answers the golden picture {difference:.2g} away from what was "
            f"recorded at export, over its tolerance of {tolerance:.2g}; set KENNEL_PRECISION to another "
            "precision or export the model again."
        )
