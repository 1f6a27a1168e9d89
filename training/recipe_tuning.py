"""[tuning] and its ranges: the search space, checked against the hyperparameters and SageMaker's limits.

Limits: CreateHyperParameterTuningJob's API reference, and "Resource limits for automatic model tuning"
(automatic-model-tuning-limits). One that is the service's alone is checked in aws/tuning_job.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_type_hints

from training.hyperparameters import Hyperparameters, canonical_name, parse_value
from training.metrics import METRICS
from training.recipe_fields import DAY_SECONDS, KIND_NAMES, Scalar, is_of_kind, setting

MAX_RANGES = 30  # searched hyperparameters, of all kinds together
MAX_CATEGORIES = 30
MAX_VALUE_CHARACTERS = 256
MAX_NAME_CHARACTERS = 32  # of a tuning job
MAX_RUN_SECONDS = 30 * DAY_SECONDS
PARENT = (
    rf"(?=.{{1,{MAX_NAME_CHARACTERS}}}$)[a-zA-Z0-9](-*[a-zA-Z0-9])*",
    f"a tuning job's name: 1 to {MAX_NAME_CHARACTERS} letters, digits and inner hyphens",
)
# Printed once, at the end: nothing could be stopped early by them.
ONCE = tuple(name for name in METRICS if name.startswith("test_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousRange:
    """[tuning.ranges.X] with type = "continuous": any number from low to high."""

    type: Literal["continuous"]
    low: float
    high: float
    scale: Literal["linear", "logarithmic"] = "linear"

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerRange:
    """[tuning.ranges.X] with type = "integer": a whole number from low to high."""

    type: Literal["integer"]
    low: int
    high: int
    scale: Literal["linear", "logarithmic"] = "linear"

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalRange:
    """[tuning.ranges.X] with type = "categorical": one of the values."""

    type: Literal["categorical"]
    values: tuple[Scalar, ...] = setting("what to choose from", min_items=1, max_items=MAX_CATEGORIES)


Range: TypeAlias = ContinuousRange | IntegerRange | CategoricalRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """[tuning]: what the search looks for, how, and how much it may spend."""

    objective: str = setting("metric that trials are compared by", choices=tuple(METRICS))
    direction: Literal["maximize", "minimize"] = setting("which way is better")
    strategy: Literal["Bayesian", "Random", "Hyperband", "Grid"] = setting(
        "how the next values are chosen", "Bayesian"
    )
    max_jobs: int = setting("trials in all", 4, low=1, high=10_000)
    max_parallel_jobs: int = setting("trials at once", 2, low=1, high=100)
    early_stopping: Literal["Off", "Auto"] = setting(
        "Auto stops a trial that is worse than the median of the others' running averages", "Off"
    )
    instance_count: int = setting("instances of one trial", 1, low=1, high=100)
    max_run_seconds: int | None = setting(
        "the whole search ends after this", None, low=120, high=MAX_RUN_SECONDS
    )
    target: float | None = setting("the search ends once the objective is this good", None)
    max_jobs_not_improving: int | None = setting(
        "the search ends after so many trials without a better one", None, low=3, high=10_000
    )
    stop_when_converged: bool = setting("on SageMaker: the service ends a search that has converged", False)
    warm_start: tuple[str, ...] = setting(
        "on SageMaker: ended tuning jobs to learn from (here: --warm-start FOLDER)",
        (),
        pattern=PARENT,
        max_items=5,
    )
    warm_start_type: Literal["IdenticalDataAndAlgorithm", "TransferLearning"] = setting(
        "what those have in common with this one", "IdenticalDataAndAlgorithm"
    )
    ranges: Mapping[str, Range] = setting(
        "search space", min_items=1, max_items=MAX_RANGES, parse_key=canonical_name
    )

    def __post_init__(self) -> None:
        for name, values in self.ranges.items():
            _check_range_fits(name, values)
        self._check_objective()
        if self.max_parallel_jobs > self.max_jobs:
            raise ValueError(
                f"max_parallel_jobs={self.max_parallel_jobs} is more than max_jobs={self.max_jobs}; lower it."
            )
        if self.strategy == "Hyperband" and self.early_stopping != "Off":
            raise ValueError(
                "strategy='Hyperband' stops trials itself and needs early_stopping='Off' "
                f"(now {self.early_stopping!r})."
            )
        if self.strategy == "Grid":
            self._check_grid()

    @property
    def combinations(self) -> int | None:
        """How many different trials there are; None where a continuous range allows any number."""
        counts = [_count(values) for values in self.ranges.values()]
        return None if None in counts else math.prod(count or 1 for count in counts)

    @property
    def is_maximized(self) -> bool:
        """Larger is better."""
        return self.direction == "maximize"

    def without(self, names: Collection[str]) -> Tuning:
        """The same search with some hyperparameters fixed; a grid shrinks with them."""
        ranges = {name: values for name, values in self.ranges.items() if name not in names}
        if self.strategy != "Grid":
            return dataclasses.replace(self, ranges=ranges)
        jobs = math.prod(len(values.values) for values in ranges.values() if values.type == "categorical")
        parallel = min(self.max_parallel_jobs, jobs)
        return dataclasses.replace(self, ranges=ranges, max_jobs=jobs, max_parallel_jobs=parallel)

    def _check_objective(self) -> None:
        wanted = "minimize" if self.objective.endswith("_loss") else "maximize"
        if self.direction != wanted:
            raise ValueError(
                f"direction={self.direction!r} would look for the worst {self.objective}; set {wanted!r}."
            )
        stops_trials = self.strategy == "Hyperband" or self.early_stopping == "Auto"
        if stops_trials and self.objective in ONCE:
            raise ValueError(
                f"objective={self.objective!r} is known at a trial's end only, so no trial can be stopped by "
                "it; choose a validation metric, or early_stopping='Off' and another strategy than Hyperband."
            )

    def _check_grid(self) -> None:
        for name, values in self.ranges.items():
            if not isinstance(values, CategoricalRange):
                raise ValueError(
                    f"strategy='Grid' takes categorical ranges only; [tuning.ranges.{name}] is "
                    f"{values.type!r}. List its values, or choose another strategy."
                )
        if self.max_jobs != self.combinations:  # the service refuses any other number
            raise ValueError(
                f"strategy='Grid' tries every combination: set max_jobs={self.combinations} "
                f"(now {self.max_jobs})."
            )


def _count(values: Range) -> int | None:
    if isinstance(values, ContinuousRange):
        return None
    return len(values.values) if isinstance(values, CategoricalRange) else values.high - values.low + 1


def _check_bounds(low: float, high: float, scale: str) -> None:
    if not low < high:
        raise ValueError(f"low={low} is not below high={high}.")
    if scale == "logarithmic" and low <= 0:
        raise ValueError(f"scale='logarithmic' needs low above 0 (now {low}); raise low or use 'linear'.")


def _check_range_fits(name: str, values: Range) -> None:
    """A range's type is its hyperparameter's own, and each value in it could be sent to a job."""
    kind = get_type_hints(Hyperparameters)[name]
    if isinstance(values, CategoricalRange):
        wrong = [value for value in values.values if not is_of_kind(value, kind)]
        if wrong:
            raise ValueError(f"[tuning.ranges.{name}]: {wrong[0]!r} is not {KIND_NAMES[kind]}.")
        tried: tuple[Scalar, ...] = values.values
    else:
        if _RANGE_TYPES.get(kind) != values.type:
            fitting = _RANGE_TYPES.get(kind, "categorical")
            raise ValueError(
                f"[tuning.ranges.{name}]: type={values.type!r} does not fit {name}, which is "
                f"{KIND_NAMES[kind]}; use {fitting!r}."
            )
        tried = (values.low, values.high)
    for value in tried:
        parse_value(name, value)
        if len(str(value)) > MAX_VALUE_CHARACTERS:
            raise ValueError(
                f"[tuning.ranges.{name}]: {str(value)[:30]!r}... is longer than {MAX_VALUE_CHARACTERS} "
                "characters."
            )


_RANGE_TYPES: dict[Any, str] = {int: "integer", float: "continuous"}
