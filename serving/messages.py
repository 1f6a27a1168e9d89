"""What passes between the HTTP side and the side that predicts: a request's bytes and its answer's.

Imports nothing heavy, so that the HTTP side stays small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from serving.errors import RequestError, Unavailable

INVOCATIONS = "/invocations"

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
MULTIPART = "multipart/form-data"
PNG = "image/png"  # of explanations only
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


PROCESS = "X-Kennel-Worker"  # index and pid of the process that answered
REQUEST_ID = "X-Request-Id"
TIMING = "Server-Timing"  # https://www.w3.org/TR/server-timing/: milliseconds of each stage


class Report(NamedTuple):
    """What was measured while a request was answered."""

    stages: Sequence[tuple[str, float]]  # stage, seconds
    batches: Sequence[int]  # pictures predicted together, per prediction
    pictures: Sequence[tuple[int, ...]]  # the drift bins of each


class Query(NamedTuple):
    """One POST /invocations: the body and the headers that say what it is and what is wanted back."""

    body: bytes
    content_type: str | None = None
    accept: str | None = None
    custom_attributes: str | None = None


class Answer(NamedTuple):
    """What the client gets; `headers` holds the Content-Type at least."""

    status: int
    headers: dict[str, str]
    body: bytes


def error_answer(status: int, code: str, message: str, hint: str) -> Answer:
    """The one form of every error: `{"error": {"code", "message", "hint"}}`."""
    return Answer(status, {"Content-Type": JSON}, encode_json({"error": describe(code, message, hint)}))


def refusal_answer(error: RequestError) -> Answer:
    """An error that says itself what it is."""
    answer = error_answer(error.status, error.code, error.message, error.hint)
    if isinstance(error, Unavailable):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def internal_error_answer() -> Answer:
    """Our fault, in one form wherever it is caught."""
    return error_answer(
        500,
        "internal_error",
        "The server failed on this request.",
        "The traceback is in the container's log.",
    )


def describe(code: str, message: str, hint: str) -> dict[str, str]:
    """The inner object of an error, which one item of many carries too."""
    return {"code": code, "message": message, "hint": hint}


def encode_json(value: object) -> bytes:
    """Strict JSON: NaN raises ValueError instead of reaching a client that cannot read it."""
    return json.dumps(value, allow_nan=False).encode()
