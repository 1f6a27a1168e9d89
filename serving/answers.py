"""What was predicted, in the content type that was asked for: one row a picture, or an error in its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from serving.errors import BadRequest, RequestError
from serving.messages import CSV, JSON, JSON_LINES, NPY, describe, encode_json

# One picture's (num_classes,) log-probabilities, or why it has none.
Row = NDArray[np.float32] | RequestError


# What else one picture's `{"predictions": [...]}` holds.
Remark = Mapping[str, Any]
NO_REMARK: Remark = {}


class Prediction(TypedDict):
    """One line of the answer to `top=N`."""

    label: str
    probability: float


def rank_labels(
    log_probabilities: NDArray[np.float32], labels: Sequence[str], *, limit: int
) -> list[Prediction]:
    """The `limit` likeliest labels of one picture's (num_classes,) log-probabilities, best first."""
    best_first = np.argsort(-log_probabilities, kind="stable")[:limit]
    return [
        {"label": labels[target], "probability": float(np.exp(log_probabilities[target]))}
        for target in best_first
    ]


def check_answer(answer_type: str, top: int | None) -> None:
    """Before anything is predicted. Raises BadRequest for labels in an array."""
    if answer_type == NPY and top is not None:
        raise BadRequest(
            f"top={top} names labels, which {NPY} cannot hold.", hint=f"Ask for {JSON} or {CSV}."
        )


def encode_one(
    log_probabilities: NDArray[np.float32],
    answer_type: str,
    labels: Sequence[str],
    top: int | None,
    remark: Remark = NO_REMARK,
) -> bytes:
    """The answer about one picture's (num_classes,): in JSON `[[log p, ...]]` or `{"predictions": [...]}`."""
    if answer_type == JSON:
        item = _item(log_probabilities, labels, top, remark)
        return encode_json([item] if top is None else item)
    return encode_many([log_probabilities], answer_type, labels, top, [remark])


def encode_many(
    rows: Sequence[Row],
    answer_type: str,
    labels: Sequence[str],
    top: int | None,
    remarks: Sequence[Remark] | None = None,
) -> bytes:
    """The answer about many: a JSON list of what one alone would get, a line or an array row each, in order.

    An error is `{"error": {...}}`, in CSV `error,code,message`, in an array a row of NaN.
    """
    if answer_type == JSON:
        return encode_json(_items(rows, labels, top, remarks))
    if answer_type == JSON_LINES:
        return b"".join(encode_json(item) + b"\n" for item in _items(rows, labels, top, remarks))
    if answer_type == CSV:
        return _encode_csv([_fields(row, labels, top) for row in rows])
    assert answer_type == NPY, answer_type  # codec.parse_accept offers nothing else
    missing = np.full(len(labels), np.nan, dtype=np.float32)
    buffer = io.BytesIO()
    np.save(buffer, np.stack([missing if isinstance(row, RequestError) else row for row in rows]), False)
    return buffer.getvalue()


def _items(
    rows: Sequence[Row], labels: Sequence[str], top: int | None, remarks: Sequence[Remark] | None
) -> list[Any]:
    if remarks is None:
        return [_item(row, labels, top, NO_REMARK) for row in rows]
    return [_item(row, labels, top, remark) for row, remark in zip(rows, remarks, strict=True)]


def _item(row: Row, labels: Sequence[str], top: int | None, remark: Remark) -> Any:
    if isinstance(row, RequestError):
        return {"error": describe(row.code, row.message, row.hint)}
    if top is None:
        return row.tolist()
    return {"predictions": rank_labels(row, labels, limit=top), **remark}


def _fields(row: Row, labels: Sequence[str], top: int | None) -> list[Any]:
    if isinstance(row, RequestError):
        return ["error", row.code, row.message]
    if top is None:
        return list(row.tolist())
    return [
        value for one in rank_labels(row, labels, limit=top) for value in (one["label"], one["probability"])
    ]


def _encode_csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # Batch Transform joins records by a bare newline
    return text.getvalue().encode()
