"""The stages by their SageMaker names: model_fn once, then input_fn, predict_fn, output_fn per request."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Bundle, Manifest, open_bundle, read_golden
from artifact.libtiff import set_libtiff_handlers
from artifact.preprocess import Preprocess
from artifact.signature import PublicKey
from serving.abstaining import Judge, build_judge, parse_risk
from serving.allocator import fix_thresholds
from serving.answers import Row, check_answer, encode_many, encode_one
from serving.codec import parse_accept, parse_content_type, parse_custom_attributes, parse_top
from serving.errors import BadRequest, GoldenMismatch, RequestError, SettingsError
from serving.explain import DEFAULT_TOP, can_explain, explain
from serving.messages import (
    CUSTOM_ATTRIBUTES,
    JSON,
    JSON_LINES,
    Answer,
    Query,
    internal_error_answer,
    refusal_answer,
)
from serving.options import Options
from serving.overrides import (
    OverriddenPredictor,
    call_stage,
    load_model,
    read_overrides,
    read_request_body,
    read_response,
)
from serving.pictures import Pictures, Source, read_pictures
from serving.settings import AUTO
from serving.telemetry import timed

DEFAULTS = Options()

logger = logging.getLogger(__name__)


class Predictor(Protocol):
    """A loaded model."""

    labels: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    concurrency: int  # threads that may call predict at once and gain by it
    max_batch: int  # pictures in one call, as long as a call for more takes less time than several calls

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) uint8 RGB -> (N, num_classes) log-probabilities."""


def model_fn(
    model_dir: Path,
    *,
    engine: str = "openvino",
    precision: str = AUTO,
    num_threads: int = 1,
    cache_dir: Path | None = None,
    public_key: PublicKey | None = None,
    allow_code: bool = False,
) -> Predictor:
    """A bundle in a warm engine that gave the golden answer; the files it needs are verified on the way.

    An artifact's own model_fn, where it may run, comes instead, and then nothing is known to compare with.
    Raises BundleError or StartError.
    """
    set_libtiff_handlers()  # hostile TIFFs would write the log full
    fix_thresholds()
    bundle = open_bundle(model_dir, public_key=public_key)
    overrides = read_overrides(bundle, allow_code=allow_code, is_signed=public_key is not None)
    if overrides is not None and overrides.model_fn is not None:
        model = load_model(overrides.model_fn, model_dir)
        served = "custom"
    else:
        predictor = model = _load(bundle, engine, precision, num_threads, cache_dir)
        served = predictor.precision
        # Also the warm-up: OpenVINO's binding can deadlock when a process's first inferences are concurrent.
        check_golden_answer(predictor, bundle)
    if overrides is None:
        return predictor
    return OverriddenPredictor(
        model=model,
        overrides=overrides,
        labels=bundle.manifest.labels,
        preprocess=bundle.manifest.preprocess,
        precision=served,
    )


def load_explainer(
    model_dir: Path,
    *,
    engine: str = "openvino",
    precision: str = AUTO,
    num_threads: int = 1,
    cache_dir: Path | None = None,
    public_key: PublicKey | None = None,
) -> Predictor:
    """As model_fn, of an artifact that can be explained, with `explain` besides `predict`."""
    set_libtiff_handlers()
    fix_thresholds()
    bundle = open_bundle(model_dir, public_key=public_key)
    explainer = _load(bundle, engine, precision, num_threads, cache_dir, explains=True)
    check_golden_answer(explainer, bundle)
    return explainer


def respond(
    query: Query, predictor: Predictor, options: Options = DEFAULTS, *, max_pixels: int | None = None
) -> Answer:
    """The answer to one request, whatever comes: the client's fault is a 4xx, ours a 500 told in the log."""
    if max_pixels is not None:
        options = replace(options, max_pixels=max_pixels)
    try:
        if isinstance(predictor, OverriddenPredictor):
            return _run_overrides(query, predictor, options)
        if can_explain(predictor):
            return explain(query, predictor, options)
        return _predict(query, predictor, options)
    except RequestError as error:
        logger.info("event=refused status=%d code=%s", error.status, error.code)
        return refusal_answer(error)
    except Exception as error:  # the last handler: the traceback goes to the log and not to the client
        logger.error("event=failed", exc_info=error)
        return internal_error_answer()


def _predict(query: Query, predictor: Predictor, options: Options) -> Answer:
    answer_type, top, headers, risk = _read_wishes(query)
    pictures = read_pictures(query.body, query.content_type, predictor.preprocess, options)
    if risk is not None:
        judge = build_judge(risk, getattr(predictor, "manifest", None), answer_type)
        body = _predict_judged(pictures, predictor, judge, answer_type, top or DEFAULT_TOP)
    elif pictures.is_one:
        with timed("decode"):
            pixels = pictures.sources[0]()
        row = predict_fn(pixels[np.newaxis], predictor)[0]
        with timed("encode"):
            body = encode_one(row, answer_type, predictor.labels, top)
    else:
        rows = predict_each(pictures.sources, predictor)
        with timed("encode"):
            body = encode_many(rows, answer_type, predictor.labels, top)
    return Answer(200, {"Content-Type": answer_type} | headers, body)


def _predict_judged(
    pictures: Pictures, predictor: Predictor, judge: Judge, answer_type: str, top: int
) -> bytes:
    rows = predict_each(judge.watch(pictures.sources), predictor)
    if pictures.is_one and isinstance(rows[0], RequestError):
        raise rows[0]
    rows = judge.calibrate(rows)
    with timed("encode"):
        if pictures.is_one and not isinstance(rows[0], RequestError):
            return encode_one(rows[0], answer_type, predictor.labels, top, judge.remark(rows)[0])
        return encode_many(rows, answer_type, predictor.labels, top, judge.remark(rows))


class _Wishes(NamedTuple):
    answer_type: str
    top: int | None
    headers: dict[str, str]  # that go back with the answer
    risk: float | None  # of `abstain`


def _read_wishes(query: Query) -> _Wishes:
    """What the headers ask for. Raises RequestError."""
    is_lines = parse_content_type(query.content_type).kind == JSON_LINES
    answer_type, top = parse_accept(query.accept, default=JSON_LINES if is_lines else JSON)
    attributes = parse_custom_attributes(query.custom_attributes)
    headers = {}
    if "top" in attributes:
        top = parse_top(attributes["top"])
        headers[CUSTOM_ATTRIBUTES] = f"top={top}"
    risk = parse_risk(attributes["abstain"]) if "abstain" in attributes else None
    check_answer(answer_type, top)
    return _Wishes(answer_type, top, headers, risk)


def _run_overrides(query: Query, predictor: OverriddenPredictor, options: Options) -> Answer:
    """As SageMaker's toolkit chains the stages, the missing ones being Kennel's own."""
    overrides = predictor.overrides
    accept = query.accept if query.accept and query.accept != "*/*" else JSON  # the toolkit's default
    if overrides.input_fn is None:
        data: Any = input_fn(query.body, query.content_type, predictor, options)
    else:
        try:
            request_body = read_request_body(query.body, query.content_type)
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"The {query.content_type} body is not UTF-8.", hint="Send text in UTF-8."
            ) from error
        data = call_stage(overrides.input_fn, request_body, query.content_type)
    if overrides.predict_fn is None:
        prediction = predict_fn(data, predictor)
    else:
        prediction = call_stage(overrides.predict_fn, data, predictor.model)
    if overrides.output_fn is None:
        answer_type, top, headers, _ = _read_wishes(query)
        body = output_fn(prediction, answer_type, predictor.labels, top)[0]
        return Answer(200, {"Content-Type": answer_type} | headers, body)
    body, answer_type = read_response(call_stage(overrides.output_fn, prediction, accept), accept)
    return Answer(200, {"Content-Type": answer_type}, body)


def input_fn(
    body: bytes, content_type: str | None, predictor: Predictor, options: Options = DEFAULTS
) -> NDArray[np.uint8]:
    """All pictures of a body -> (N, crop, crop, 3) uint8 RGB. Raises RequestError for the first bad one."""
    pictures = read_pictures(body, content_type, predictor.preprocess, options)
    return np.stack([source() for source in pictures.sources])


def predict_fn(pixels: NDArray[np.uint8], predictor: Predictor) -> NDArray[np.float32]:
    """(N, crop, crop, 3) -> (N, num_classes) log-probabilities."""
    return predictor.predict(pixels)


def predict_each(sources: Sequence[Source], predictor: Predictor) -> list[Row]:
    """A row for each picture, or its error: decoded as they are predicted, `max_batch` of them in memory."""
    rows: list[Row] = []
    for start in range(0, len(sources), predictor.max_batch):
        decoded = [_attempt(source) for source in sources[start : start + predictor.max_batch]]
        pixels = [one for one in decoded if not isinstance(one, RequestError)]
        predicted = iter(predict_fn(np.stack(pixels), predictor) if pixels else ())
        rows += [one if isinstance(one, RequestError) else next(predicted) for one in decoded]
    return rows


def _attempt(source: Source) -> NDArray[np.uint8] | RequestError:
    try:
        with timed("decode"):
            return source()
    except RequestError as error:
        return error


def output_fn(
    log_probabilities: NDArray[np.float32], accept: str, labels: Sequence[str], top: int | None
) -> tuple[bytes, str]:
    """The body and its content type: every log-probability in label order, or the `top` likeliest labels."""
    if len(log_probabilities) == 1:
        return encode_one(log_probabilities[0], accept, labels, top), accept
    return encode_many(list(log_probabilities), accept, labels, top), accept


def _load(
    bundle: Bundle,
    engine: str,
    wanted: str,
    num_threads: int,
    cache_dir: Path | None,
    *,
    explains: bool = False,
) -> Predictor:
    """Imports here: no image has both libraries."""
    if engine == "torch":
        from serving import engine_torch

        precision = choose_precision(bundle.manifest, wanted, native=engine_torch.native_precisions())
        chosen = engine_torch.TorchExplainer if explains else engine_torch.TorchPredictor
        return chosen(bundle, precision=precision, num_threads=num_threads)
    from serving import engine_openvino

    precision = choose_precision(bundle.manifest, wanted, native=engine_openvino.native_precisions())
    kind = engine_openvino.OpenVinoExplainer if explains else engine_openvino.OpenVinoPredictor
    return kind(bundle, precision=precision, num_threads=num_threads, cache_dir=cache_dir)


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
