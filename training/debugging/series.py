"""The neutral record of a training: JSON Lines that only grow, so that a killed job leaves a readable one.

One line is one record: its `kind` and the fields of the dataclass of that name. A last line cut short by a
crash is left out; kinds and fields this version does not know are ignored. A resumed job appends to the file,
so steps after its checkpoint may come twice. A step whose loss is not finite has a record, though the loop
refuses it before its optimizer step. Beside series.jsonl in the folder `debugging` of a job's output lie
operators.json (operators.py) and verdicts.jsonl (live.py).

**Tensor names** are smdebug's less the network's class, so that documented regexes fit; a module's name is
its path in the network.

- weights `layer1.0.conv1.weight`, biases `fc.bias`: before the step's update. REDUCTIONS.
- gradients `gradient/layer1.0.conv1.weight`: of every parameter that learns, biases too. REDUCTIONS.
- updates `layer1.0.conv1.weight`: what the optimizer step added to a parameter that learns. mean_abs,
  max_abs, l2, and ratio = mean |update| / (mean |weight| + 1e-9).
- activations `layer1.0.relu_output_0`: of every module in ACTIVATIONS, the number counts its calls in a
  step; `gate_input_0`: of those in SATURATING also what goes in. REDUCTIONS and inactive_X; what goes in
  has low and high too.
- inputs `input_0`: the step's images as the network sees them. REDUCTIONS, images (count), mean_0 .. mean_2.

REDUCTIONS are count, mean, mean_abs, variance (of the whole), min, max, l2, zeros (share, 0-1), nan and
non_finite (counts; infinite = non_finite - nan), p5, p25, p50, p75, p95 (of an evenly spaced sample).
inactive_X (X of INACTIVE_PERCENTS) is the share (0-1) of a layer's units of whose values less than X percent
are active (X = 0: none at all). A unit is a channel, or a column of a linear layer's output; an output is
active above 0, an input between low and high, beyond which the function is flat. Activations are those of a
sample of the batch; in mode EVAL they are all there is, of the first batch of the pass.

**Facts** by name (those marked * each time it happens): `job` (architecture, device, precision, batch_size,
epochs, steps_per_epoch, num_classes, train_images, world_size, cores, gpus, debug_interval, image_size,
pixels_in, pixels_bytes, memory_budget_bytes), `labels` (list), `rules` (name, parameters and action of each
that was asked for), `layers` (module name -> class name), `frozen` (parameters that do not learn),
`process_started` (unix seconds), `initialization_seconds` (from there to the first step),
`evaluation_seconds`*, `checkpoint_seconds`*, `profiled_steps` ([first, last]: slowed by the operator
profiler), `ended` ("closed": the loop is over or raised; absent where the job was killed), `failure` (why the
training raised).

**Phases** in Step.seconds: data, transfer, augment, forward, backward, optimizer, other, their sum total, and
beside it record: what watching cost. On a GPU only some steps have the phases (it must be waited for); all
have total and record. EVAL steps have total only.

**System** values, rates per second since the sample before, percents 0-100: cpu_percent, cpu0_percent ...,
iowait_percent, memory_bytes (this process and its children), memory_available_bytes, memory_percent (of the
machine), disk_read_bytes, disk_write_bytes, network_received_bytes, network_sent_bytes; gpu0_percent,
gpu0_memory_percent (of its memory), gpu0_memory_bytes, gpu0_power_watts, gpu0_temperature_celsius.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SERIES_FILE = "series.jsonl"
TRAIN, EVAL = "TRAIN", "EVAL"  # smdebug's names for the modes

# Classes of torch.nn whose output, and input, are looked at. Functions called without a module are not seen.
ACTIVATIONS = ("ReLU", "ReLU6", "LeakyReLU", "SiLU", "GELU", "Hardswish", "Sigmoid", "Hardsigmoid", "Tanh")
SATURATING = ("Sigmoid", "Tanh")
INACTIVE_PERCENTS = (0, 1, 5, 10, 50)


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
    collection: str  # weights, biases, gradients, updates, activations, inputs
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
    values: dict[str, float]


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
_FIELDS = {kind: [field.name for field in dataclasses.fields(of)] for kind, of in KINDS.items()}


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


class SeriesWriter:
    """Appends records to the file, and keeps them for rules that look on; any thread may."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._series = read_series(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / SERIES_FILE
        cut_short = path.is_file() and not path.read_bytes().endswith(b"\n")
        self._file: FileIO | None = path.open("ab", buffering=0)
        if cut_short:  # by a crash: the next record must not continue that line
            self._file.write(b"\n")

    def add(self, record: Record) -> None:
        """Hand the record to the operating system, so that it outlives a kill -9 of this process."""
        with self._lock:
            self._series.add(record)
            if self._file is None:
                return
            try:
                self._file.write(encode_record(record).encode())
            except OSError as error:  # a full disk must not end the training that is being watched
                logger.warning("the debugger's series ends here: %s", error)
                self._file.close()
                self._file = None

    def snapshot(self) -> Series:
        """What has been written so far, an earlier start of the same job included."""
        with self._lock:
            lists = {item.name: list(getattr(self._series, item.name)) for item in dataclasses.fields(Series)}
            return Series(**lists)

    def close(self) -> None:
        """No records after this one; the snapshot stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def encode_record(record: Record) -> str:
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
