"""What a tuning job on this machine needs before its first trial: values, data, cores, command lines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifact.cores import available_cores
from local.platform import training_python
from local.training_job import find_channels
from training.recipe import Recipe
from training.recipe_fields import Scalar
from training.recipe_tuning import ONCE, CategoricalRange, Tuning
from tuning.recipes import find_changes, write_recipe

CACHE_VARIABLE = "KENNEL_CACHE"  # training/doctor/cache.py
CACHE_INSIDE = "/kennel-cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is searched, where, and with how much."""

    source: Path  # the recipe's file
    recipe: Recipe  # that recipe, with overrides
    data: Path
    output: Path
    weights: Path | None = None
    image: str | None = None
    max_jobs: int
    max_parallel_jobs: int

    @property
    def tuning(self) -> Tuning:
        """The recipe's; `Recipe.for_search` has seen to it."""
        assert self.recipe.tuning
        return self.recipe.tuning

    @property
    def fixed(self) -> dict[str, str]:
        """Hyperparameters alike in all trials."""
        strings = self.recipe.hyperparameters.to_strings()
        return {name: value for name, value in strings.items() if name not in self.tuning.ranges}

    @property
    def max_epochs(self) -> int:
        """Of the longest trial there can be."""
        epochs = self.tuning.ranges.get("epochs")
        if epochs is None:
            return self.recipe.hyperparameters.epochs
        return max(map(int, epochs.values)) if isinstance(epochs, CategoricalRange) else int(epochs.high)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a search to be gone on with."""
        return {
            "hyperparameters": self.fixed,
            "ranges": describe_ranges(self.tuning),
            "objective": self.tuning.objective,
            "strategy": self.tuning.strategy,
            "data": str(self.data.resolve()),
        }


def describe_ranges(tuning: Tuning) -> dict[str, dict[str, Any]]:
    """As in the recipe."""
    described: dict[str, dict[str, Any]] = json.loads(
        json.dumps({name: asdict(values) for name, values in tuning.ranges.items()})
    )
    return described


def link_channels(plan: Plan) -> Path:
    """A folder with the channels that trials get, under `output`.

    Without the test split: nothing is chosen by it, and to evaluate it takes time. An objective that is
    measured on it is another matter.
    """
    channels = find_channels(plan.data)
    if plan.tuning.objective not in ONCE:
        channels.pop("test", None)
    folder = plan.output / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for split, source in channels.items():
        (folder / split).symlink_to(source.resolve())
    return folder


def write_trial_recipe(plan: Plan, parameters: Mapping[str, Scalar], destination: Path) -> Recipe:
    """The recipe of one trial, which `python -m local train` would run as well.

    No other precisions than fp32 are made: they change no score, and only the final model is served.
    """
    return write_recipe(
        plan.source,
        destination,
        hyperparameters={**find_changes(plan.source, plan.fixed, parameters), "quantize": "off"},
        instance_count=plan.tuning.instance_count,
    )


def trial_command(plan: Plan, *, recipe: Path, data: Path, output: Path, cores: tuple[int, ...]) -> list[str]:
    """The process of one trial."""
    command = [str(training_python()), "-m", "local.tuning_trial", str(recipe)]
    command += ["--data", str(data), "--output", str(output)]
    if plan.weights:
        command += ["--weights", str(plan.weights.resolve())]
    if cores:
        command += [f"--cores={','.join(map(str, cores))}"]
    if plan.image:
        command += ["--image", plan.image, *(f"--docker={word}" for word in docker_options(cores))]
    return command


def docker_options(cores: tuple[int, ...]) -> list[str]:
    """The trial's share of the cores, and the cache that all trials share."""
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "kennel").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    options = [f"--volume={cache}:{CACHE_INSIDE}", f"--env={CACHE_VARIABLE}={CACHE_INSIDE}"]
    return [*options, f"--cpuset-cpus={','.join(map(str, cores))}"] if cores else options


def share_cores(slot: int, slots: int) -> tuple[int, ...]:
    """The cores of one of several trials; empty where it may use them all."""
    if slots == 1 or not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))[: available_cores()]
    share = max(1, len(cores) // slots)
    return tuple(cores[(slot * share + place) % len(cores)] for place in range(share))
