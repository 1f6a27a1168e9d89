"""What the server answered for each image, joined with the truth its folder states."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 0.02  # 120 probabilities rounded to 4 decimals miss 1 by at most 0.006
SMALLEST_PROBABILITY = 1e-12  # a rounded answer may say 0, whose logarithm could not be averaged
EXCERPT_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image; `path` is relative and posix, because the same file name occurs under opposite labels."""

    path: str
    label: str | None  # None: the truth is not known
    log_probabilities: NDArray[Any] | None  # (num_classes,) float; None: missing or failed, see `error`
    error: str = ""


def read_outputs(input_dir: Path, output_dir: Path, labels: Sequence[str]) -> list[Item]:
    """One item per file under `input_dir` (hidden ones skipped), its answer read from `<path>.out`."""
    if not input_dir.is_dir():
        raise NotADirectoryError(f"The input folder {str(input_dir)!r} does not exist or is no folder.")
    files = (file.relative_to(input_dir) for file in input_dir.rglob("*") if file.is_file())
    paths = sorted(file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts))
    return [_read_item(path, output_dir / f"{path}.out", labels) for path in paths]


def _read_item(path: str, output: Path, labels: Sequence[str]) -> Item:
    folder, *below = PurePosixPath(path).parts
    label = folder if below and folder in labels else None
    try:
        log_probabilities = parse_output(output.read_bytes(), labels)
    except FileNotFoundError:
        return Item(path=path, label=label, log_probabilities=None, error="no output")
    except (OSError, ValueError) as error:
        return Item(path=path, label=label, log_probabilities=None, error=str(error))
    return Item(path=path, label=label, log_probabilities=log_probabilities)


def parse_output(body: bytes, labels: Sequence[str]) -> NDArray[np.float64]:
    """Log-probabilities in label order from either JSON answer; a ValueError names what was found."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"the output is not JSON: {_excerpt(body)}") from None
    match answer:
        case [[*values]]:
            log_probabilities = _floats(values, len(labels))
        case {"predictions": [*predictions]}:
            log_probabilities = _log_of_labelled(predictions, labels)
        case _:
            raise ValueError(f"the output is not one row of log-probabilities: {_excerpt(body)}")
    total = float(np.exp(np.minimum(log_probabilities, 700.0)).sum())  # e^710 overflows
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"the probabilities sum to {total:.4g}, not to 1")
    return log_probabilities


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
