"""The process that explains, as the HTTP side sees it: started when it is first asked, with a small queue.

It has its own copy of the model and runs at the lowest priority, so that on saturated cores explanations wait
and predictions do not. `serving/pool.py` keeps it alive as it does the processes that predict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from serving.messages import Answer, Query, Report
from serving.pool import Pool
from serving.processes import Child

QUEUE_LIMIT = 4  # requests that may wait, besides the one in hand and the one in its socket
SECONDS = 30.0  # in which an explanation must be begun; then 503 with Retry-After

logger = logging.getLogger(__name__)


class Explainers:
    """One process, once there is need of it."""

    def __init__(self, start_child: Callable[[int], Child], *, stuck_seconds: float) -> None:
        self._start_child = start_child
        self._stuck_seconds = stuck_seconds
        self._pool: Pool | None = None

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        """As Pool.ask; the first request waits until the model is loaded. Raises RequestError."""
        if self._pool is None:
            self._pool = self._start()
        return self._pool.ask(query, seconds=min(seconds, SECONDS), is_gone=is_gone)

    def _start(self) -> Pool:
        pool = Pool(
            [self._start_child(0)],
            start_child=self._start_child,
            refuse=self._forget,
            events=_Events(),
            queue_limit=QUEUE_LIMIT,
            stuck_seconds=self._stuck_seconds,
        )
        pool.start()
        return pool

    def _forget(self, sentence: str) -> None:
        """It could not start; the next request tries again."""
        logger.error("event=no_explanations reason=%s", sentence)
        self._pool = None


class _Events:
    """The metrics of predictions stay free of explanations."""

    def ready(self, info: dict[str, Any]) -> None:
        logger.info("event=explains precision=%s", info["precision"])

    def restarted(self) -> None:
        logger.warning("event=explainer_restarted")

    def queued(self, waiting: int) -> None: ...

    def answered(self, report: Report, *, queue_seconds: float) -> None: ...

    def watched(self, pictures: Sequence[tuple[int, ...]]) -> None: ...
