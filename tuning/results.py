"""What a search found, in one form for both places: this machine's trials and a SageMaker tuning job's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from training.recipe_fields import Scalar

NAME = "tuning.json"
FORMAT_VERSION = "1.0"
IMPROVEMENT = 0.01  # BestObjectiveNotImproving: "failed to improve by 1 % or greater"

State: TypeAlias = Literal["running", "completed", "stopped", "failed"]


class ResultsError(ValueError):
    """Results that cannot be read or used; the message names the file and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training job of a search. A stopped one has a model and a score, of fewer epochs."""

    number: int  # from 1, in the order of their start
    state: State
    parameters: Mapping[str, Scalar]  # what was searched; the rest is alike in all
    objective: float | None = None  # the last value printed, which is what SageMaker compares
    reason: str = ""  # why it was stopped, or failed
    curve: tuple[Mapping[str, float], ...] = ()  # metrics of each epoch
    epochs: int = 0  # that it was to run
    seconds: float = 0.0
    started: float = 0.0  # seconds since the Epoch
    job: str = ""  # the training job's name, or its folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A search and its trials."""

    name: str
    place: str  # "this machine", "containers on this machine", "SageMaker"
    objective: str
    direction: Literal["maximize", "minimize"]
    strategy: str
    early_stopping: str
    max_jobs: int
    max_parallel_jobs: int
    ranges: Mapping[str, Mapping[str, Any]]  # as in the recipe: type, low, high, scale or values
    fixed: Mapping[str, str] = field(default_factory=dict)  # hyperparameters alike in all trials
    seconds: float = 0.0  # from the first start to the last end, interruptions left out
    machines: str = ""  # of one trial
    dollars_per_hour: float | None = None  # of one trial; None where nothing is paid by the hour
    over: str = ""  # why the search ended
    trials: tuple[Trial, ...] = ()

    @property
    def best(self) -> Trial | None:
        """Of the completed trials; of the stopped ones where none completed; the first of equals."""
        ranked = self.ranked()
        return next((trial for trial in ranked if trial.state == "completed"), ranked[0] if ranked else None)

    def ranked(self) -> list[Trial]:
        """Those that ended with a score, best first."""
        scored = [trial for trial in self.trials if trial.state in ("completed", "stopped")]
        scored = [trial for trial in scored if trial.objective is not None]
        return sorted(scored, key=lambda trial: (self.loss(trial.objective), trial.number))

    def loss(self, value: float | None) -> float:
        """Less is better, whatever the direction; infinity for no value."""
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if self.direction == "maximize" else value

    def dollars(self, trial: Trial) -> float | None:
        """What a trial cost."""
        return None if self.dollars_per_hour is None else self.dollars_per_hour * trial.seconds / 3600


def jobs_without_improvement(results: Results) -> int:
    """How many trials ended since the best value last grew by 1 %, as SageMaker counts them."""
    best, count = math.inf, 0
    for trial in results.trials:
        if trial.state == "running":
            continue
        loss = results.loss(trial.objective)
        if math.isinf(best) or loss < best - IMPROVEMENT * abs(best):
            best, count = min(best, loss), 0
        else:
            best, count = min(best, loss), count + 1
    return count


def write_results(results: Results, destination: Path) -> None:
    """tuning.json, whole or not at all."""
    document = {"format_version": FORMAT_VERSION, **asdict(results)}
    partial = destination.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(destination)


def read_results(path: Path) -> Results:
    """tuning.json, or the one in a folder. Raises ResultsError naming it."""
    file = path / NAME if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        version = str(document.pop("format_version"))
        if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
            raise ResultsError(
                f"{file} has format {version}, and this is {FORMAT_VERSION}: read it with that."
            )
        trials = tuple(Trial(**{**trial, "curve": tuple(trial["curve"])}) for trial in document.pop("trials"))
        return Results(**document, trials=trials)
    except OSError as error:
        raise ResultsError(f"{file} cannot be read ({error.strerror}): name a tuning job's folder.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{file} holds no tuning results ({error}).") from None
