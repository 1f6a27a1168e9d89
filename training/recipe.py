"""One TOML file per job, read and checked in one place before anything costs money.

    recipe = read_recipe(Path("recipes/dogs-resnet50.toml")).with_overrides(["epochs=1"])

A recipe has these sections; all but `name` may be left out, and none is acted on here:

    name, description            prefix of every job, endpoint and function the recipe makes
    [data]                       where the images come from and what they should look like
    [hyperparameters]            the training job's settings (training/hyperparameters.py)
    [tuning], [tuning.ranges.X]  the search: objective, strategy, budget, one table per hyperparameter
    [training]                   the machines of a training job
    [debugger]                   the rules that watch it, and [debugger.parameters.RULE] to adjust one
    [endpoint]                   the machines of an endpoint; [endpoint.scaling], [endpoint.lambda]
    [transform]                  the machines and request sizes of a Batch Transform job
    [ec2]                        the machine for the same training without SageMaker
    [aws]                        region, bucket, network, key and tags of the account

The dataclasses below are the schema: `build_table` reads any of them, and refuses an unknown key, a
wrong type or a value out of range by name. Stdlib only: `local` and `aws` import this file.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_type_hints

from training.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
    canonical_name,
    parse_hyperparameters,
)
from training.recipe_aws import Account, Ec2, Endpoint, Transform
from training.recipe_fields import (
    DAY_SECONDS,
    S3_URI,
    SAGEMAKER_INSTANCE,
    Scalar,
    setting,
)
from training.recipe_table import RecipeError, build_table, convert, expect_table, naming, nearest
from training.recipe_tuning import Tuning

ModelRule = Literal[
    "VanishingGradient",
    "ExplodingTensor",
    "PoorWeightInitialization",
    "DeadRelu",
    "SaturatedActivation",
    "WeightUpdateRatio",
    "AllZero",
    "UnchangedTensor",
    "TensorVariance",
    "Overfit",
    "Overtraining",
    "LossNotDecreasing",
    "ClassImbalance",
    "Confusion",
    "CheckInputImages",
    "StalledTrainingRule",
]
ProfilerRule = Literal[
    "LowGPUUtilization",
    "ProfilerReport",
    "BatchSize",
    "CPUBottleneck",
    "IOBottleneck",
    "GPUMemoryIncrease",
    "LoadBalancing",
    "MaxInitializationTime",
    "OverallFrameworkMetrics",
    "OverallSystemUsage",
    "StepOutlier",
    "Dataloader",
]

# A tuning job's name is at most 32 characters, and a time stamp follows the recipe's name. Lower case
# because the service lower-cases the ARNs of endpoints, and a policy is matched against those.
NAME = (r"(?=.{1,20}$)[a-z0-9](-*[a-z0-9])*", "1 to 20 lower-case letters, digits and inner hyphens")
URL = (r"https?://\S+", "an http or https address")
SHA256 = (r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")
KAGGLE_NAME = (r"\w[\w-]*/\w[\w-]*", "of the form owner/dataset")
FOLDER = (r"(?!.*(^|/)\.\.?(/|$))[^/\\\0]+(/[^/\\\0]+)*", "a folder inside the archive, such as 'images/all'")
CONTENT_TYPE = (r"[\w.+-]+/[\w.+-]+", "a content type such as 'image/jpeg'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """[data]: the images, as one folder per label under train, valid and test."""

    url: str = setting("archive (zip or tar) to download", "", pattern=URL)
    sha256: str = setting("checksum of that archive", "", pattern=SHA256)
    kaggle: str = setting("data set that the user's own kaggle client downloads", "", pattern=KAGGLE_NAME)
    archive_root: str = setting(
        "folder in the archive that holds the three; its top if empty", "", pattern=FOLDER
    )
    train_folder: str = setting("what the archive calls train", "train", pattern=FOLDER)
    valid_folder: str = setting("what the archive calls valid", "valid", pattern=FOLDER)
    test_folder: str = setting("what the archive calls test", "test", pattern=FOLDER)
    num_classes: int | None = setting("how many labels there should be", None, low=2, high=100_000)
    content_type: str = setting(
        "of the images, for channels and transform", "image/jpeg", pattern=CONTENT_TYPE
    )
    license_note: str = setting("what is known about the licence; shown before a download", "")
    hint: str = setting("how to get the images when there is nothing to download", "")

    def __post_init__(self) -> None:
        if self.url and self.kaggle:
            raise ValueError("url and kaggle are both given; keep one.")
        if self.sha256 and not self.url:
            raise ValueError("sha256 is given without a url; add the url or leave sha256 out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """[training]: the machines of a training job, and of each trial of a tuning job."""

    instance_type: str = setting("machine", "ml.m5.xlarge", pattern=SAGEMAKER_INSTANCE)
    instance_count: int = setting("how many of them train together", 1, low=1, high=100)
    volume_gb: int = setting("disk of each", 30, low=1, high=16_384)
    max_run_seconds: int = setting("the service stops the job after this", 3600, low=1, high=28 * DAY_SECONDS)
    spot: bool = setting("spare capacity: cheaper, may be interrupted, resumes from its checkpoint", False)
    max_wait_seconds: int | None = setting(
        "with spot: waiting and running together", None, low=1, high=28 * DAY_SECONDS
    )
    input_mode: Literal["File", "FastFile"] = setting(
        "images are copied before the start, or read from S3 when needed", "File"
    )
    distribution: Literal["FullyReplicated", "ShardedByS3Key"] = setting(
        "of the training images over several instances: all to each, or each to one", "FullyReplicated"
    )
    keep_alive_seconds: int = setting(
        "machines wait this long for the next job; paid for", 0, low=0, high=3600
    )
    network_isolation: bool = setting("no network from inside the container, not even to S3", False)
    weights: str = setting(
        "folder with a state dict to start from, as the channel `weights`",
        "",
        pattern=(f"({S3_URI[0]})?", S3_URI[1]),
    )
    register: bool = setting("also a model package in the Model Registry", False)

    def __post_init__(self) -> None:
        if self.spot and self.keep_alive_seconds:
            raise ValueError(
                f"keep_alive_seconds={self.keep_alive_seconds} (a warm pool) and spot = true exclude "
                "each other; drop one."
            )
        if not self.spot and self.max_wait_seconds is not None:
            raise ValueError(
                f"max_wait_seconds={self.max_wait_seconds} has a meaning with spot = true only; "
                "set spot or leave it out."
            )
        if self.spot and (self.max_wait_seconds or 0) < self.max_run_seconds:
            raise ValueError(
                f"spot = true needs max_wait_seconds of at least max_run_seconds={self.max_run_seconds} "
                f"(now {self.max_wait_seconds})."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Debugger:
    """[debugger]: the rules that watch a training job."""

    rules: tuple[ModelRule, ...] = ()
    profiler_rules: tuple[ProfilerRule, ...] = ()
    parameters: Mapping[str, Mapping[str, Scalar]] = dataclasses.field(default_factory=dict)
    on_service: bool = setting("also SageMaker Debugger itself, for accounts that still have it", False)
    save_interval: int = setting(
        "steps between two recordings of tensors by the service's hook", 100, low=1, high=10**6
    )

    def __post_init__(self) -> None:
        chosen = (*self.rules, *self.profiler_rules)
        for rule in self.parameters:
            if rule not in chosen:
                raise ValueError(
                    f"[debugger.parameters.{rule}] adjusts a rule that is in neither rules nor "
                    f"profiler_rules. {nearest(rule, chosen)}"
                )


def _read_hyperparameters(table: object, where: str) -> Hyperparameters:
    """[hyperparameters]: types as in TOML, then names, ranges and combinations as for any job."""
    hints = get_type_hints(Hyperparameters)
    values = expect_table(table, where)
    with naming(where):
        for key, value in values.items():
            convert(value, hints[canonical_name(key)], key, where, {})
        return parse_hyperparameters({key: str(value) for key, value in values.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole job. A section that is None was not asked for."""

    name: str = setting("prefix of every name the recipe makes", pattern=NAME)
    description: str = setting("one sentence", "")
    data: Data = Data()
    hyperparameters: Hyperparameters = dataclasses.field(
        default=Hyperparameters(), metadata={"read": _read_hyperparameters}
    )
    tuning: Tuning | None = None
    training: Training = Training()
    debugger: Debugger = Debugger()
    endpoint: Endpoint | None = None
    transform: Transform | None = None
    ec2: Ec2 | None = None
    aws: Account = dataclasses.field(default_factory=Account)

    def with_overrides(self, overrides: Iterable[str]) -> Recipe:
        """The recipe with hyperparameters changed, each given as `name=value` (the verbs' --set)."""
        changed: dict[str, str] = {}
        for text in overrides:
            name, value = _parse_override(text)
            if name in changed:
                raise RecipeError(f"Override {text!r} sets {name} a second time; keep one.")
            changed[name] = value
        try:
            hyperparameters = parse_hyperparameters({**self.hyperparameters.to_strings(), **changed})
        except HyperparameterError as error:
            raise RecipeError(f"Override not possible: {error}") from None
        return dataclasses.replace(self, hyperparameters=hyperparameters)

    def for_search(self, overrides: Iterable[str]) -> Recipe:
        """`with_overrides` for a tuning job: what is overridden is searched no longer.

        Raises RecipeError where the recipe has no [tuning], or nothing is left of its ranges.
        """
        overrides = list(overrides)
        if self.tuning is None:
            raise RecipeError(f"Recipe {self.name} has no [tuning], so there is nothing to search; add one.")
        fixed = [_parse_override(text)[0] for text in overrides]
        tuning = self.tuning.without(fixed)
        if not tuning.ranges:
            raise RecipeError(f"--set fixes everything that [tuning.ranges] searches: {', '.join(fixed)}.")
        return dataclasses.replace(self.with_overrides(overrides), tuning=tuning)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises RecipeError, with the file in the message, at the first fault."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe: Recipe = build_table(Recipe, table, "")
    except OSError as error:
        neighbours = [str(neighbour) for neighbour in path.parent.glob("*.toml")]
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}). {nearest(str(path), neighbours)}"
        ) from None
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    except ValueError as error:
        raise RecipeError(f"{path}: not valid TOML ({error}).") from None
    return _with_debug_rules(recipe)


def _with_debug_rules(recipe: Recipe) -> Recipe:
    """[debugger] reaches the container as a hyperparameter; one that is given itself stands."""
    debugger, hyperparameters = recipe.debugger, recipe.hyperparameters
    chosen = (*debugger.rules, *debugger.profiler_rules)
    if not chosen or hyperparameters.debug_rules != Hyperparameters().debug_rules:
        return recipe
    text = ",".join(chosen)
    if debugger.parameters:
        text = json.dumps({rule: dict(debugger.parameters.get(rule, {})) for rule in chosen})
    hyperparameters = dataclasses.replace(hyperparameters, debug_rules=text)
    return dataclasses.replace(recipe, hyperparameters=hyperparameters)


def _parse_override(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"Override {text!r} is not of the form name=value, such as epochs=1.")
    try:
        return canonical_name(name), value
    except HyperparameterError as error:
        raise RecipeError(f"Override {text!r}: {error}") from None
