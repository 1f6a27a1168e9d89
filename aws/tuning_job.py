"""A recipe's search space as CreateHyperParameterTuningJob.

Limits: API reference and "automatic-model-tuning-limits". A trial's definition has no debugger, no entry
point and no remote debugging: what HyperParameterTrainingJobDefinition does not have cannot be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aws.site import Site, build_tags, build_vpc_config
from aws.steps import PlanError, Step, Wait, content_name
from aws.training_job import (
    build_algorithm,
    build_channels,
    build_output,
    build_resources,
    build_stopping,
    check_pretrained,
)
from training.recipe import Recipe
from training.recipe_tuning import CategoricalRange, Range, Tuning

MAX_JOBS = 750  # of a tuning job, but for Random
MAX_JOBS_RANDOM = 10_000
SCALES = {"linear": "Linear", "logarithmic": "Logarithmic"}
RANGE_KEYS = {
    "integer": "IntegerParameterRanges",
    "continuous": "ContinuousParameterRanges",
    "categorical": "CategoricalParameterRanges",
}


def plan_tuning_job(recipe: Recipe, site: Site, *, data: str = "") -> list[Step]:
    """Search, and wait for the end."""
    request = build_tuning_job(recipe, site, data=data)
    name = request["HyperParameterTuningJobName"]
    training, tuning = recipe.training, _tuning(recipe)
    rounds = -(-tuning.max_jobs // tuning.max_parallel_jobs)
    wait = Wait(
        operation="DescribeHyperParameterTuningJob",
        request={"HyperParameterTuningJobName": name},
        state="HyperParameterTuningJobStatus",
        done=("Completed",),
        failed=("Failed", "Stopped", "DeleteFailed"),
        timeout_seconds=rounds * ((training.max_wait_seconds or training.max_run_seconds) + 1800),
    )
    return [
        Step(
            service="sagemaker",
            operation="CreateHyperParameterTuningJob",
            request=request,
            wait_for=wait,
        )
    ]


def build_tuning_job(recipe: Recipe, site: Site, *, data: str = "") -> dict[str, Any]:
    """The CreateHyperParameterTuningJob request. Raises PlanError for a space the service refuses."""
    check_pretrained(recipe)
    tuning = _tuning(recipe)
    _check_limits(tuning)
    training = recipe.training
    fixed = {
        name: value
        for name, value in recipe.hyperparameters.to_strings().items()
        if name not in tuning.ranges
    }
    definition: dict[str, Any] = {
        "StaticHyperParameters": fixed,
        "AlgorithmSpecification": build_algorithm(recipe, site),
        "RoleArn": site.role_arn("training"),
        "InputDataConfig": build_channels(recipe, site, data=data),
        "OutputDataConfig": build_output(recipe, site),
        "ResourceConfig": build_resources(recipe, tuning.instance_count),
        "StoppingCondition": build_stopping(training),
        "EnableNetworkIsolation": training.network_isolation,
        "EnableManagedSpotTraining": training.spot,
        **build_vpc_config(recipe),
    }
    config = _build_config(recipe, tuning)
    warm_start = _build_warm_start(tuning)
    content = ["tuning", definition, config, site.run, *([warm_start] if warm_start else [])]
    name = content_name(recipe.name, content)
    if training.spot:
        definition["CheckpointConfig"] = {"S3Uri": site.uri(f"checkpoints/{name}")}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": definition,
        **warm_start,
        "Tags": build_tags(recipe),
    }


def _build_config(recipe: Recipe, tuning: Tuning) -> dict[str, Any]:
    return {
        "Strategy": tuning.strategy,
        "HyperParameterTuningJobObjective": {
            "Type": tuning.direction.capitalize(),
            "MetricName": tuning.objective,
        },
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": tuning.max_jobs,
            "MaxParallelTrainingJobs": tuning.max_parallel_jobs,
            **({"MaxRuntimeInSeconds": tuning.max_run_seconds} if tuning.max_run_seconds else {}),
        },
        "ParameterRanges": build_ranges(tuning.ranges),
        "TrainingJobEarlyStoppingType": tuning.early_stopping,
        "RandomSeed": recipe.hyperparameters.seed,
        **_build_strategy(recipe, tuning),
        **_build_completion(tuning),
    }


def build_ranges(ranges: Mapping[str, Range]) -> dict[str, list[dict[str, Any]]]:
    """ParameterRanges: all three kinds are there, every value a string."""
    built: dict[str, list[dict[str, Any]]] = {key: [] for key in RANGE_KEYS.values()}
    for name, values in ranges.items():
        if isinstance(values, CategoricalRange):
            entry: dict[str, Any] = {"Name": name, "Values": [_text(value) for value in values.values]}
        else:
            bounds = {"MinValue": _text(values.low), "MaxValue": _text(values.high)}
            entry = {"Name": name, **bounds, "ScalingType": SCALES[values.scale]}
        built[RANGE_KEYS[values.type]].append(entry)
    return built


def _build_strategy(recipe: Recipe, tuning: Tuning) -> dict[str, Any]:
    """Hyperband spends epochs: the trainer prints the objective once for each."""
    if tuning.strategy != "Hyperband":
        return {}
    epochs = tuning.ranges.get("epochs")
    high = (
        epochs.high if epochs and not isinstance(epochs, CategoricalRange) else recipe.hyperparameters.epochs
    )
    return {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": int(high)}}}


def _build_completion(tuning: Tuning) -> dict[str, Any]:
    """TuningJobCompletionCriteria: what ends the search before its last trial."""
    criteria: dict[str, Any] = {}
    if tuning.target is not None:
        criteria["TargetObjectiveMetricValue"] = tuning.target
    if tuning.max_jobs_not_improving:
        most = {"MaxNumberOfTrainingJobsNotImproving": tuning.max_jobs_not_improving}
        criteria["BestObjectiveNotImproving"] = most
    if tuning.stop_when_converged:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    return {"TuningJobCompletionCriteria": criteria} if criteria else {}


def _build_warm_start(tuning: Tuning) -> dict[str, Any]:
    """WarmStartConfig. Parents have as many hyperparameters as this job: every one is always sent."""
    if not tuning.warm_start:
        return {}
    parents = [{"HyperParameterTuningJobName": name} for name in tuning.warm_start]
    return {
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": parents,
            "WarmStartType": tuning.warm_start_type,
        }
    }


def _check_limits(tuning: Tuning) -> None:
    most = MAX_JOBS_RANDOM if tuning.strategy == "Random" else MAX_JOBS
    if tuning.max_jobs > most:
        raise PlanError(
            f"[tuning] max_jobs={tuning.max_jobs}: {tuning.strategy} takes at most {most}. Lower it."
        )


def _tuning(recipe: Recipe) -> Tuning:
    if recipe.tuning is None:
        raise PlanError(f"Recipe {recipe.name} has no [tuning], so there is nothing to search; add one.")
    return recipe.tuning


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
