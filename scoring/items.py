"""What the server answered for one image: read from its JSON, whichever of the forms it has."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 0.02  # 120 probabilities rounded to 4 decimals miss 1 by at most 0.006
SMALLEST_PROBABILITY = 1e-12  # a rounded answer may say 0, whose logarithm could not be averaged
EXCERPT_CHARACTERS = 80
JOINED_OUTPUT = "SageMakerOutput"  # where a transform job with JoinSource=Input puts the answer
KEYS = ("path", "key", "id", "image", "name")  # of a joined record, in which its item is named


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image; `path` is relative and posix, because the same file name occurs under opposite labels."""

    path: str
    label: str | None  # None: the truth is not known
    log_probabilities: NDArray[Any] | None  # (num_classes,) float; None: missing or failed, see `error`
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of an output: the item it names itself, if it does, and its log-probabilities or why not."""

    name: str
    log_probabilities: NDArray[np.float64] | None
    error: str = ""


def read_answers(body: bytes, labels: Sequence[str]) -> list[Answer]:
    """One answer, or one per line of an output that has several."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > 1 and all(line[:1] in b"{[" for line in lines) and _is_whole(lines[0]):
        return [_read_answer(line, labels) for line in lines]
    return [_read_answer(body, labels)]


def _is_whole(line: bytes) -> bool:
    """Not the first line of one indented document."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read_answer(line: bytes, labels: Sequence[str]) -> Answer:
    name = ""
    try:
        answer = _load(line)
        if isinstance(answer, dict):
            name = next((str(answer[key]) for key in KEYS if isinstance(answer.get(key), str)), "")
            answer = answer.get(JOINED_OUTPUT, answer)
        return Answer(name, _log_probabilities(answer, line, labels))
    except ValueError as error:
        return Answer(name, None, str(error))


def parse_output(body: bytes, labels: Sequence[str]) -> NDArray[np.float64]:
    """Log-probabilities in label order from one JSON answer; a ValueError names what was found."""
    return _log_probabilities(_load(body), body, labels)


def _load(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"the output is not JSON: {_excerpt(body)}") from None


def _log_probabilities(answer: Any, body: bytes, labels: Sequence[str]) -> NDArray[np.float64]:
    match answer:
        case [[*values]]:
            log_probabilities = _floats(values, len(labels))
        case [float() | int(), *_]:  # a line of many
            log_probabilities = _floats(answer, len(labels))
        case {"predictions": [*predictions]}:
            log_probabilities = _log_of_labelled(predictions, labels)
        case {"error": error}:
            raise ValueError(f"the server refused it: {_reason(error)}")
        case _:
            raise ValueError(f"the output is not one row of log-probabilities: {_excerpt(body)}")
    total = float(np.exp(np.minimum(log_probabilities, 700.0)).sum())  # e^710 overflows
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"the probabilities sum to {total:.4g}, not to 1")
    return log_probabilities


def _reason(error: Any) -> str:
    """Of `{"error": {"code", "message", "hint"}}`, which one item of many may carry."""
    message = error.get("message", error) if isinstance(error, Mapping) else error
    return _excerpt(str(message).encode())


def _log_of_labelled(predictions: list[Any], labels: Sequence[str]) -> NDArray[np.float64]:
    try:
        by_label = {prediction["label"]: prediction["probability"] for prediction in predictions}
    except (KeyError, TypeError):
        raise ValueError("a prediction in the output lacks its label or its probability") from None
    if unknown := sorted(str(label) for label in by_label.keys() - set(labels)):
        raise ValueError(f"the output names {unknown[0]!r}, which is not one of the {len(labels)} labels")
    if len(by_label) != len(labels):
        raise ValueError(f"the output names {len(by_label)} of {len(labels)} labels; all are needed")
    probabilities = _floats([by_label[label] for label in labels], len(labels))
    if (probabilities < 0).any():
        raise ValueError(f"the output holds the negative probability {probabilities.min():.4g}")
    logarithms: NDArray[np.float64] = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
    return logarithms


def _floats(values: list[Any], num_classes: int) -> NDArray[np.float64]:
    if len(values) != num_classes:
        raise ValueError(f"the output has {len(values)} values where {num_classes} labels are known")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the output holds {value!r:.40} where a number is expected")
        if not -1e300 < value < 1e300 or math.isnan(value):  # a comparison holds for an int of any length
            raise ValueError(f"the output holds {value!r:.40}, which is not a finite number")
    return np.asarray(values, dtype=np.float64)


def _excerpt(body: bytes) -> str:
    text = " ".join(body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", errors="replace").split())
    return f"{text[:EXCERPT_CHARACTERS]}…" if len(text) > EXCERPT_CHARACTERS else text or "(empty)"
