"""What a process that predicts notes down while it answers: the stages' seconds, the pictures' drift bins.

    with collect() as notes:
        answer = respond(query, predictor)
    reply(answer, notes.report())       # to the HTTP side, whose metrics these become

Small integers and floats only, and no metrics library: a process killed here takes nothing along but the
request it had in hand and the bins of the few pictures before it. Outside `collect` everything is a no-op, so
that nobody needs an `if`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from artifact.baseline import Baseline, find_bins, measure
from artifact.preprocess import Preprocess
from serving.messages import Report

if TYPE_CHECKING:  # the handler times its stages with this module
    from serving.handler import Predictor


BEAT_SECONDS = 1.0
# Each prediction drives all else out of the processor's caches: measured alone, a picture costs three times
# what it costs among eight.
MEASURED_TOGETHER = 8


@dataclass(slots=True)
class Notes:
    """What is noted during one request."""

    stages: list[tuple[str, float]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    pictures: list[tuple[int, ...]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of pictures not yet predicted
    beat: Callable[[], None] = lambda: None
    beaten: float = field(default_factory=time.perf_counter)

    def report(self) -> Report:
        """For the way to the HTTP side."""
        return Report(tuple(self.stages), tuple(self.batches), tuple(self.pictures))

    def timing(self) -> str:
        """For the client: `decode;dur=2.8, infer;dur=9.1`, milliseconds over all pictures."""
        sums: dict[str, float] = {}
        for stage, seconds in self.stages:
            sums[stage] = sums.get(stage, 0.0) + seconds
        return ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in sums.items())


_notes: ContextVar[Notes | None] = ContextVar("kennel_notes", default=None)


@contextmanager
def collect(beat: Callable[[], None] = lambda: None) -> Iterator[Notes]:
    """Note what happens inside; `beat` is called every BEAT_SECONDS or so while stages come to their end."""
    notes = Notes(beat=beat)
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Note how long the block took, also when it raises: decode, infer or encode."""
    notes = _notes.get()
    if notes is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        ended = time.perf_counter()
        notes.stages.append((stage, ended - started))
        if ended - notes.beaten > BEAT_SECONDS:
            notes.beaten = ended
            notes.beat()


def note_batch(size: int) -> None:
    """So many pictures were predicted together."""
    notes = _notes.get()
    if notes is not None:
        notes.batches.append(size)


def note_size(size: tuple[int, int]) -> None:
    """Width and height as sent of a picture that could be decoded, for drift."""
    notes = _notes.get()
    if notes is not None:
        notes.sizes.append(size)


class _Predicted(NamedTuple):
    """Pictures that wait to be measured."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3)
    log_probabilities: NDArray[np.float32]  # (N, num_classes)
    sizes: Sequence[tuple[int, int]]  # one for each picture, or none count


class WatchedPredictor:
    """A predictor that is timed, and whose pictures are put into the baseline's bins, if there is one.

    A picture's bins may come with a later request's notes, or from `measure_held` when there is no later one.
    """

    def __init__(self, predictor: Predictor, baseline: Baseline | None) -> None:
        self.labels = predictor.labels
        self.preprocess = predictor.preprocess
        self.precision = predictor.precision
        self.concurrency = predictor.concurrency
        self.max_batch = predictor.max_batch
        self._predictor = predictor
        self._baseline = baseline
        self._held: list[_Predicted] = []
        # Threads that predict at once would measure each other's, and batches of their own are many already.
        self._together = MEASURED_TOGETHER if predictor.concurrency == 1 else 1

    labels: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    concurrency: int
    max_batch: int

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) uint8 RGB -> (N, num_classes) log-probabilities, the predictor's own."""
        with timed("infer"):
            log_probabilities = self._predictor.predict(pixels)
        notes = _notes.get()
        if notes is not None and self._baseline is not None:
            self._held.append(_Predicted(pixels, log_probabilities, tuple(notes.sizes)))
            notes.sizes.clear()
            if sum(len(held.pixels) for held in self._held) >= self._together:
                notes.pictures += self.measure_held()
        return log_probabilities

    @property
    def is_holding(self) -> bool:
        """Whether predicted pictures wait to be measured."""
        return bool(self._held)

    def measure_held(self) -> list[tuple[int, ...]]:
        """The bins of the pictures that waited."""
        held, self._held = self._held, []
        return [bins for one in held for bins in _measure(self._baseline, one)] if self._baseline else []

    def __getattr__(self, name: str) -> Any:
        """What else an engine offers passes through, unwatched."""
        return getattr(self._predictor, name)


def _measure(baseline: Baseline, predicted: _Predicted) -> list[tuple[int, ...]]:
    pixels, log_probabilities, noted = predicted
    sizes = noted if len(noted) == len(pixels) else [None] * len(pixels)
    return [
        find_bins(baseline, measure(image, row, baseline.label_groups, size))
        for image, row, size in zip(pixels, log_probabilities, sizes, strict=True)
    ]
