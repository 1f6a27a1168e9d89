"""The neutral record of a training: JSON Lines that only grow, so that a killed job leaves a readable one.

One line is one record: its `kind` and the fields of the dataclass of that name. A last line cut short by a
crash is left out; kinds and fields this version does not know are ignored.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SERIES_FILE = "series.jsonl"
TRAIN, EVAL = "TRAIN", "EVAL"  # smdebug's names for the modes


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step (TRAIN), or one pass over the validation split (EVAL)."""

    step: int  # of the job, from 0
    epoch: int  # from 0
    mode: str
    time: float  # unix seconds, at its end
    loss: float
    accuracy: float  # top-1, 0-1
    images: int
    learning_rate: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)  # phase -> duration; "total" is the whole step


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """Reductions of many tensors at one step: tensor name -> reduction -> value."""

    step: int
    mode: str
    collection: str  # weights, gradients, updates, activations, inputs
    values: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What was predicted, counted: of a training step's batch, or of a whole validation pass."""

    step: int
    mode: str
    confusion: list[list[int]]  # (num_classes, num_classes): right label, then predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A sample of the machine; a figure that the machine does not have is absent."""

    time: float
    values: dict[str, float]  # cpu_percent, memory_bytes, gpu0_percent, disk_read_bytes_per_second, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is said once: name of a parameter, of the job, or of an event, with a time."""

    time: float
    name: str
    value: Any


Record = Step | Tensors | Predictions | System | Fact
KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Step, Tensors, Predictions, System, Fact)
}
_FIELDS = {kind: {field.name for field in dataclasses.fields(of)} for kind, of in KINDS.items()}


@dataclass(slots=True)
class Series:
    """All records of one run, each kind in the order written."""

    steps: list[Step] = field(default_factory=list)
    tensors: list[Tensors] = field(default_factory=list)
    predictions: list[Predictions] = field(default_factory=list)
    system: list[System] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Put a record where it belongs."""
        match record:
            case Step():
                self.steps.append(record)
            case Tensors():
                self.tensors.append(record)
            case Predictions():
                self.predictions.append(record)
            case System():
                self.system.append(record)
            case Fact():
                self.facts.append(record)


def write_record(record: Record) -> str:
    """One line, with its newline. JSON's non-standard NaN and Infinity stand for themselves."""
    fields = {name: getattr(record, name) for name in _FIELDS[type(record).__name__.lower()]}
    return json.dumps({"kind": type(record).__name__.lower()} | fields, separators=(",", ":")) + "\n"


def read_series(directory: Path) -> Series:
    """The series under `directory`; empty where there is none yet."""
    series = Series()
    path = directory / SERIES_FILE
    if path.is_file():
        for record in _read_records(path):
            series.add(record)
    return series


def _read_records(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                kind = content.pop("kind")
                if kind in KINDS:
                    yield KINDS[kind](**{k: v for k, v in content.items() if k in _FIELDS[kind]})
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("%s line %d is left out (%s)", path, number, error)
