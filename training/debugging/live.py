"""Rules that look on while the network trains: at each epoch's end, and now and then in between.

Every change of a verdict is a line of verdicts.jsonl beside the series; of a rule that fires the log tells.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.debugging.rules import RuleSettings, Verdict, evaluate
from training.debugging.series import SeriesWriter
from training.job import JobError, write_failure
from training.observer import Observer

logger = logging.getLogger(__name__)

VERDICTS_FILE = "verdicts.jsonl"
SHORTEST_PAUSE_SECONDS = 10.0
PAUSE_PER_EVALUATION = 100  # times as long as an evaluation took: rules may cost 1 % of the time
STALLED = "StalledTrainingRule"  # the only one that finds a loop which will not ask


class LiveRules(Observer):
    """Judges in a thread; what a rule with the action `stop` finds ends the job at the next step."""

    def __init__(
        self, writer: SeriesWriter, rules: Sequence[RuleSettings], directory: Path, *, failure_path: Path
    ) -> None:
        self._writer = writer
        self._rules = list(rules)
        self._path = directory / VERDICTS_FILE
        self._failure_path = failure_path
        self._stops = {settings.name for settings in rules if settings.action == "stop"}
        self._known: dict[str, tuple[str, int | None]] = {}  # rule -> the status and step last written
        self._reason = ""  # why the job must end
        self._epoch_over = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rules", daemon=True)
        self._thread.start()

    def step_starts(self, step: int) -> None:
        if self._reason:
            raise JobError(self._reason)

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        self._epoch_over.set()

    def close(self) -> None:
        self._closed.set()
        self._epoch_over.set()
        self._thread.join()
        verdicts = self.judge()
        fired = ",".join(verdict.rule for verdict in verdicts if verdict.fired)
        logger.info("rules=%d fired=%s verdicts=%s", len(verdicts), fired or "none", self._path)

    def judge(self) -> list[Verdict]:
        """All rules on the series as it is now."""
        with self._lock:
            verdicts = evaluate(self._writer.snapshot(), self._rules)
            for verdict in verdicts:
                self._take(verdict)
        return verdicts

    def _run(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while not self._closed.is_set():
            self._epoch_over.wait(pause)
            self._epoch_over.clear()
            if self._closed.is_set():
                return
            started = time.thread_time()
            self.judge()
            pause = max(SHORTEST_PAUSE_SECONDS, PAUSE_PER_EVALUATION * (time.thread_time() - started))

    def _take(self, verdict: Verdict) -> None:
        seen = (verdict.status, verdict.step)
        if self._known.get(verdict.rule) == seen:
            return
        self._known[verdict.rule] = seen
        action = "stop" if verdict.rule in self._stops else "report"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(encode_verdict(verdict, action=action))
        if not verdict.fired:
            return
        logger.warning("rule=%s step=%s %s %s", verdict.rule, verdict.step, verdict.summary, verdict.advice)
        if action == "stop":
            self._stop(verdict)

    def _stop(self, verdict: Verdict) -> None:
        self._reason = f"{verdict.rule} stopped the job: {verdict.summary} {verdict.advice}".strip()
        if verdict.rule == STALLED and not self._closed.is_set():
            write_failure(self._failure_path, self._reason)
            logger.error("%s", self._reason)
            os._exit(1)  # nothing else gets a loop out of where it hangs


def encode_verdict(verdict: Verdict, *, action: str) -> str:
    """One line: the verdict's fields, the time, and what it leads to."""
    fields: dict[str, Any] = {"time": round(time.time(), 3), "action": action} | dataclasses.asdict(verdict)
    return json.dumps(fields, separators=(",", ":")) + "\n"
