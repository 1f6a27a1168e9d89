"""Whether too many answers are our own failures: a sick server should not be sent more."""

from __future__ import annotations

import time
from collections import deque

WINDOW_SECONDS = 60.0
WINDOW_ANSWERS = 50  # the last ones, at most so old
LEAST_ANSWERS = 20  # fewer say nothing
FAILING_SHARE = 0.5


class ErrorRate:
    """The share of failures among the last answers."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, bool]] = deque(maxlen=WINDOW_ANSWERS)

    def add(self, *, failed: bool) -> None:
        """An answer was given."""
        self._answers.append((time.monotonic(), failed))

    def is_failing(self) -> bool:
        """Over FAILING_SHARE; silence heals, since nothing is sent to a server that /ping calls sick."""
        since = time.monotonic() - WINDOW_SECONDS
        recent = [failed for moment, failed in self._answers if moment >= since]
        return len(recent) >= LEAST_ANSWERS and sum(recent) > FAILING_SHARE * len(recent)
