"""Why this label: a class-activation map of one picture, as JSON or as a picture of its own.

    X-Amzn-SageMaker-Custom-Attributes: explain=cam     {"predictions": [...], "explanation": {...}}
    Accept: image/png                                   the map over the picture

Answered by a process of its own (serving/explainers.py), so that predictions never wait for explanations.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from artifact.preprocess import Preprocess
from serving.answers import rank_labels
from serving.codec import parse_accept, parse_custom_attributes, parse_top, prefers_png
from serving.errors import BadRequest
from serving.heatmap import draw_overlay, normalise
from serving.messages import CUSTOM_ATTRIBUTES, JSON, PNG, Answer, Query, encode_json
from serving.options import Options
from serving.pictures import read_pictures
from serving.telemetry import timed

CAM = "cam"
DEFAULT_TOP = 5


class Explainer(Protocol):
    """A loaded model that explains itself."""

    labels: tuple[str, ...]
    preprocess: Preprocess

    def explain(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(crop, crop, 3) RGB -> (num_classes,) log-probabilities, (num_classes, height, width) logits."""


def can_explain(predictor: object) -> TypeGuard[Explainer]:
    """As isinstance would tell of a runtime-checkable protocol, at a tenth of its time on every request."""
    return hasattr(predictor, "explain")


class Wish(NamedTuple):
    """What of an explanation is wanted."""

    answer_type: str  # JSON or PNG
    top: int


def explain(query: Query, explainer: Explainer, options: Options) -> Answer:
    """The answer to a request that `wants_explanation`. Raises RequestError."""
    wish = _read_wish(query)
    pictures = read_pictures(query.body, query.content_type, explainer.preprocess, options)
    if len(pictures.sources) != 1:
        raise BadRequest(
            f"The request has {len(pictures.sources)} pictures.", hint="Explain one picture a request."
        )
    with timed("decode"):
        pixels = pictures.sources[0]()
    with timed("infer"):
        log_probabilities, maps = explainer.explain(pixels)
    with timed("encode"):
        target = int(log_probabilities.argmax())
        heat = normalise(maps[target])
        overlay = draw_overlay(pixels, heat)
        body = overlay
        if wish.answer_type == JSON:
            body = encode_json(_describe(explainer, log_probabilities, wish.top, heat, overlay))
    return Answer(200, {"Content-Type": wish.answer_type, CUSTOM_ATTRIBUTES: f"explain={CAM}"}, body)


def _describe(
    explainer: Explainer,
    log_probabilities: NDArray[np.float32],
    top: int,
    heat: NDArray[np.float32],
    overlay: bytes,
) -> dict[str, Any]:
    predictions = rank_labels(log_probabilities, explainer.labels, limit=top)
    return {
        "predictions": predictions,
        "explanation": {
            "method": CAM,
            "label": predictions[0]["label"],
            "map": [[round(float(value), 4) for value in row] for row in heat],
            "image": base64.b64encode(overlay).decode(),
        },
    }


def _read_wish(query: Query) -> Wish:
    """Raises BadRequest or NotAcceptable."""
    attributes = parse_custom_attributes(query.custom_attributes)
    if attributes.get("explain", CAM) != CAM:
        raise BadRequest(
            f"explain={attributes['explain']!r} is not a way to explain.", hint=f"Send explain={CAM}."
        )
    if prefers_png(query.accept or ""):
        return Wish(PNG, 1)
    answer_type, top = parse_accept(query.accept, default=JSON)
    if answer_type != JSON:
        raise BadRequest(f"{answer_type} cannot hold an explanation.", hint=f"Ask for {JSON} or {PNG}.")
    if "top" in attributes:
        top = parse_top(attributes["top"])
    return Wish(JSON, top or DEFAULT_TOP)
