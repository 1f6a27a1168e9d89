"""Single pictures gathered into batches, for an engine that gains by them (a GPU).

Whenever the engine is free it takes what waits, without waiting for more: under load the next batch gathers
while this one runs, and alone a picture is not kept. The size is cut so that the oldest picture is answered
within its time, by a cost model learnt from the batches run so far. Sizes are powers of two, padded, so that
the engine sees a handful of shapes and a picture's answer does not depend on its mates (same shape: the same
to the last bit; other shapes: other kernels, within float rounding).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.telemetry import note_batch

FORGETTING = 0.98  # of a batch's weight in the cost model, per batch after it


class CostModel:
    """seconds = fixed + per_picture x n, by least squares with exponential forgetting."""

    def __init__(self) -> None:
        self._moments: NDArray[np.float64] = np.zeros(5)  # sums of 1, n, n^2, seconds, n x seconds

    def observe(self, n: int, seconds: float) -> None:
        """A batch of n pictures took so long."""
        self._moments = self._moments * FORGETTING + (1.0, n, n * n, seconds, n * seconds)

    def predict(self, n: int) -> float:
        """Seconds a batch of n would take; 0 before the first was seen."""
        weight, sum_n, sum_nn, sum_t, sum_nt = self._moments
        if weight == 0.0:
            return 0.0
        spread = sum_nn - sum_n**2 / weight
        slope = max(0.0, (sum_nt - sum_n * sum_t / weight) / spread) if spread > 1e-9 else sum_t / sum_n
        return float(max(0.0, (sum_t - slope * sum_n) / weight) + slope * n)


class _Waiting(NamedTuple):
    pixels: NDArray[np.uint8]  # (crop, crop, 3)
    since: float
    answer: Future[tuple[NDArray[np.float32], int]]  # the row, and the batch's size with its first picture


class Batcher:
    """A thread that runs the engine; any number of threads call `predict`."""

    def __init__(
        self,
        run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        *,
        max_batch: int,
        target_seconds: float,
    ) -> None:
        self.sizes: deque[int] = deque(maxlen=1000)  # of the last batches, without padding
        self._run = run
        self._max_batch = max_batch
        self._target_seconds = target_seconds
        self._costs = CostModel()
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._loop, name="batcher", daemon=True).start()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) -> (N, num_classes), in whatever company. Raises what the engine raised."""
        now = time.monotonic()
        waiting = [_Waiting(picture, now, Future()) for picture in pixels]
        with self._changed:
            self._waiting.extend(waiting)
            self._changed.notify()
        answers = [one.answer.result() for one in waiting]
        for _, together in answers:
            if together:
                note_batch(together)
        return np.stack([row for row, _ in answers])

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = [self._waiting.popleft() for _ in range(self._choose_size())]
            self._answer(batch)

    def _choose_size(self) -> int:
        """The most that wait whose batch ends before the oldest has waited target_seconds; at least 1."""
        size = min(len(self._waiting), self._max_batch)
        left = self._target_seconds - (time.monotonic() - self._waiting[0].since)
        while size > 1 and self._costs.predict(padded_size(size)) > max(left, self._costs.predict(1)):
            size = padded_size(size) // 2
        return size

    def _answer(self, batch: list[_Waiting]) -> None:
        size = padded_size(len(batch))
        pixels = np.zeros((size, *batch[0].pixels.shape), dtype=np.uint8)
        for row, one in zip(pixels, batch, strict=False):
            row[:] = one.pixels
        started = time.monotonic()
        try:
            log_probabilities = self._run(pixels)
        except Exception as error:  # of the engine: every picture of the batch is told
            for one in batch:
                one.answer.set_exception(error)
            return
        self._costs.observe(size, time.monotonic() - started)
        self.sizes.append(len(batch))
        for at, one in enumerate(batch):
            one.answer.set_result((log_probabilities[at], 0 if at else len(batch)))


def padded_size(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()
