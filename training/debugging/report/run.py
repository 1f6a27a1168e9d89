"""A recorded run, read and judged: what a report is about."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.debugging.rules import PROFILER_RULES, RULES, RuleSettings, Verdict, evaluate
from training.debugging.rules.selection import eval_steps, read_fact, train_steps, without_repeats
from training.debugging.series import SERIES_FILE, Fact, Series, read_series, encode_record

logger = logging.getLogger(__name__)

OPERATORS_FILE = "operators.json"
# Where a series lies in what people have at hand: the folder itself, a job's output, `local`'s OUT.
PLACES = ("", "debugging", "data/debugging", "output/data/debugging")


class RunError(ValueError):
    """There is no series where one was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training and what the rules make of it."""

    name: str
    directory: Path  # where series.jsonl lies
    series: Series  # without the steps that a resumed job did again
    verdicts: tuple[Verdict, ...]
    operators: Mapping[str, Any]  # operators.json; empty where nothing was profiled

    @property
    def job(self) -> Mapping[str, Any]:
        """What the series says of the job: architecture, device, epochs, ..."""
        return read_fact(self.series, "job") or {}

    @property
    def fired(self) -> list[Verdict]:
        """The verdicts worth reading first."""
        return [verdict for verdict in self.verdicts if verdict.fired and verdict.rule != "ProfilerReport"]


def find_series(path: Path) -> Path:
    """The folder of the series. Raises RunError naming where it was looked for."""
    for place in PLACES:
        if (path / place / SERIES_FILE).is_file():
            return path / place
    raise RunError(
        f"There is no {SERIES_FILE} in {path}, nor in its {', '.join(PLACES[1:])}: give the folder of a "
        f"job that "
        "was trained with debug=true."
    )


def read_run(directory: Path, *, name: str) -> Run:
    """Read and judge again, by the rules the job was given; by all of them where it had none."""
    series = without_repeats(read_series(directory))
    operators: dict[str, Any] = {}
    path = directory / OPERATORS_FILE
    if path.is_file():
        try:
            operators = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # killed while it was written
            logger.warning("%s is left out (%s)", path, error)
    return Run(
        name=name,
        directory=directory,
        series=series,
        verdicts=tuple(evaluate(series, _settings(series))),
        operators=operators,
    )


def note_failure(directory: Path, error: BaseException) -> None:
    """Into the series, so that a report says why the training ended."""
    if (directory / SERIES_FILE).is_file():
        text = str(error) or type(error).__name__
        with (directory / SERIES_FILE).open("a", encoding="utf-8") as file:
            file.write(encode_record(Fact(time=time.time(), name="failure", value=text)))


def _settings(series: Series) -> list[RuleSettings]:
    """The job's rules, and the profiler rules in place of ProfilerReport, whose parts are worth seeing."""
    given = read_fact(series, "rules")
    chosen = (
        [RuleSettings(**rule) for rule in given] if given else [RuleSettings(name=name) for name in RULES]
    )
    names = {settings.name for settings in chosen}
    parts = [RuleSettings(name=name) for name in PROFILER_RULES if name not in names]
    for settings in chosen:
        if settings.name == "ProfilerReport":
            parts = [
                RuleSettings(name=part.name, parameters=_expand(part.name, settings.parameters))
                for part in parts
            ]
    needed = parts if "ProfilerReport" in names else [p for p in parts if p.name in ALWAYS]
    return chosen + needed


ALWAYS = ("DataWait", "OverallSystemUsage", "OverallFrameworkMetrics")


def _expand(rule: str, parameters: Mapping[str, str]) -> dict[str, str]:
    prefix = f"{rule}_"
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def best_validation(series: Series) -> tuple[int, float, float] | None:
    """(epoch from 1, accuracy, loss) of the best pass, as training chooses it; None without one."""
    passes = eval_steps(series)
    if not passes:
        return None
    best = max(passes, key=lambda step: (step.accuracy, -step.loss))
    return best.epoch + 1, best.accuracy, best.loss


def duration_seconds(series: Series) -> float:
    """From the first step's begin to the last one's end, validation included."""
    steps = train_steps(series)
    if not steps:
        return 0.0
    return max(step.time for step in series.steps) - (steps[0].time - steps[0].seconds.get("total", 0.0))
