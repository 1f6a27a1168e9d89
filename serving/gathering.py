"""Requests answered together by one thread: a processor takes less time for pictures at once than one by one.

Each request runs in a greenlet of its own as far as its prediction. When all that were at hand have come so
far, one prediction is made for all of them, and each goes on with its own rows. A request alone waits for
nobody, and one of a thousand pictures holds nobody up: those that come meanwhile are answered in between.
(An engine that gains by many pictures at once has threads and `serving/batching.py` instead.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from greenlet import getcurrent, greenlet
from numpy.typing import NDArray

from serving.telemetry import note_batch

if TYPE_CHECKING:
    from serving.handler import Predictor


Request: TypeAlias = Callable[[], None]


class _Waiting(NamedTuple):
    request: greenlet
    pixels: NDArray[np.uint8]  # (N, crop, crop, 3)


class _Predicted(NamedTuple):
    rows: NDArray[np.float32]  # (N, num_classes)
    together: int  # pictures of all requests; 0 to all of them but the first


class Gathering:
    """A predictor for requests that `run_requests` runs; to any other caller the one it was made of."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._waiting: deque[_Waiting] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) -> (N, num_classes) log-probabilities. Raises what the engine raised."""
        request = getcurrent()
        if request.parent is None:
            return self._predictor.predict(pixels)
        self._waiting.append(_Waiting(request, pixels))
        predicted: _Predicted = request.parent.switch()
        if predicted.together:
            note_batch(predicted.together)
        return predicted.rows

    def run_requests(self, first: Request, take: Callable[[int], Iterable[Request]]) -> None:
        """The first and what `take(most)` gives until nobody waits: each to its end, whatever the others' is.

        Raises what a request raised.
        """
        greenlet(first).switch()
        while self._start(take(self.max_batch - len(self._waiting))):
            batch = self._next_batch()
            try:
                predicted = self._predict_together(batch)
            except Exception:  # one picture the engine fails on shall fail its own request only
                self._answer_apart(batch)
                continue
            for one, own in zip(batch, predicted, strict=True):
                one.request.switch(own)

    def _start(self, requests: Iterable[Request]) -> bool:
        """Whether any request waits for its prediction now."""
        for request in requests:
            greenlet(request).switch()
        return bool(self._waiting)

    def _next_batch(self) -> list[_Waiting]:
        """Those that have waited longest, as many pictures as the engine takes at once."""
        batch = [self._waiting.popleft()]
        free = self.max_batch - len(batch[0].pixels)
        while self._waiting and len(self._waiting[0].pixels) <= free:
            batch.append(self._waiting.popleft())
            free -= len(batch[-1].pixels)
        return batch

    def _predict_together(self, waiting: list[_Waiting]) -> list[_Predicted]:
        sizes = [len(one.pixels) for one in waiting]
        pixels = np.concatenate([one.pixels for one in waiting]) if len(sizes) > 1 else waiting[0].pixels
        parts = np.split(self._predictor.predict(pixels), np.cumsum(sizes)[:-1])
        return [_Predicted(rows, 0 if at else len(pixels)) for at, rows in enumerate(parts)]

    def _answer_apart(self, waiting: list[_Waiting]) -> None:
        for one in waiting:
            try:
                [predicted] = self._predict_together([one])
            except Exception as error:
                one.request.throw(error)
            else:
                one.request.switch(predicted)
