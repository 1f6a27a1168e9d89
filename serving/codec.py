"""Bytes and headers at the border: which content types come in, what goes out, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from serving.errors import BadRequest, NotAcceptable, UnsupportedContentType
from serving.messages import JSON

ACCEPTED_AS_JSON = (JSON, "application/*", "*/*", "*")
# One type holds for a whole Batch Transform job, so the bytes decide what they are, not this header.
BINARY_TYPES = ("application/x-image", "application/octet-stream")


class Prediction(TypedDict):
    """One line of the answer to `top=N`."""

    label: str
    probability: float


def check_content_type(content_type: str | None) -> None:
    """Pass pictures, bytes of no stated kind and a missing header. Raises UnsupportedContentType."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind and kind not in BINARY_TYPES and not kind.startswith("image/"):
        raise UnsupportedContentType(
            f"Content type {content_type!r} is not supported.",
            hint="Send the bytes of one picture as image/jpeg, image/png, image/webp or application/x-image.",
        )


def parse_accept(accept: str | None) -> tuple[str, int | None]:
    """The content type to answer in and its `top`. Raises NotAcceptable, or BadRequest for a bad `top`."""
    if not (accept or "").strip():
        return JSON, None
    for value, quality in parse_accept_header(accept, MIMEAccept):
        content_type, options = parse_options_header(value)
        if quality > 0 and content_type.lower() in ACCEPTED_AS_JSON:
            return JSON, parse_top(options["top"]) if "top" in options else None
    raise NotAcceptable(
        f"Accept {accept!r} cannot be answered.",
        hint=f"Ask for {JSON} (log-probabilities) or `{JSON}; top=5` (labels and probabilities, best first).",
    )


def parse_custom_attributes(header: str | None) -> dict[str, str]:
    """`key=value` pairs between commas or semicolons; anything else in the header is someone else's."""
    pairs = (part.partition("=") for part in (header or "").replace(";", ",").split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def parse_top(text: str) -> int:
    """How many labels to answer with. Raises BadRequest naming the value."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9])):
        raise BadRequest(
            f"top={text!r} is not a count of labels.", hint="Send a whole number from 1 on, as top=5."
        )
    return int(text[:9])


def rank_labels(
    log_probabilities: NDArray[np.float32], labels: Sequence[str], *, limit: int
) -> list[Prediction]:
    """The `limit` likeliest labels of one picture's (num_classes,) log-probabilities, best first."""
    best_first = np.argsort(-log_probabilities, kind="stable")[:limit]
    return [
        {"label": labels[target], "probability": float(np.exp(log_probabilities[target]))}
        for target in best_first
    ]
