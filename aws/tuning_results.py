"""A SageMaker tuning job's descriptions as the results of a search, for the same page and best.toml."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from aws.client import Aws
from aws.costs import price
from aws.execution import Tail
from aws.training_job import LOG_GROUP
from aws.tuning_job import RANGE_KEYS
from training.hyperparameters import SERVICE_PREFIXES, parse_value
from training.recipe_fields import Scalar
from tuning.curves import read_curve
from tuning.results import Results, State, Trial

STATES: Mapping[str, State] = {"Completed": "completed", "Stopped": "stopped", "Failed": "failed"}
LOG_LINES = 100_000


def find_results(aws: Aws, name: str) -> Results:
    """Ask the service for a tuning job, its trials and what they printed. Raises AwsError."""
    job = aws.call("sagemaker", "DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": name})
    request = {"HyperParameterTuningJobName": name, "SortBy": "CreationTime", "SortOrder": "Ascending"}
    summaries = [
        summary
        for page in aws.pages("sagemaker", "ListTrainingJobsForHyperParameterTuningJob", request)
        for summary in page["TrainingJobSummaries"]
    ]
    names = [summary["TrainingJobName"] for summary in summaries]
    jobs = [aws.call("sagemaker", "DescribeTrainingJob", {"TrainingJobName": trial}) for trial in names]
    logs = [_read_log(aws, trial) for trial in names]
    return build_results(job, summaries, jobs, logs)


def build_results(
    job: Mapping[str, Any],
    summaries: Sequence[Mapping[str, Any]],
    jobs: Sequence[Mapping[str, Any]],
    logs: Sequence[str],
) -> Results:
    """From DescribeHyperParameterTuningJob, HyperParameterTrainingJobSummary, DescribeTrainingJob and log."""
    config, resources = job["HyperParameterTuningJobConfig"], job["TrainingJobDefinition"]["ResourceConfig"]
    fixed = job["TrainingJobDefinition"].get("StaticHyperParameters", {})
    count, machine = resources["InstanceCount"], resources["InstanceType"]
    trials = [
        _build_trial(number, *found, fixed=fixed)
        for number, found in enumerate(zip(summaries, jobs, logs, strict=True), start=1)
    ]
    limits, objective = config["ResourceLimits"], config["HyperParameterTuningJobObjective"]
    return Results(
        name=job["HyperParameterTuningJobName"],
        place="SageMaker",
        objective=objective["MetricName"],
        direction="maximize" if objective["Type"] == "Maximize" else "minimize",
        strategy=config["Strategy"],
        early_stopping=config.get("TrainingJobEarlyStoppingType", "Off"),
        max_jobs=limits.get("MaxNumberOfTrainingJobs", len(trials)),
        max_parallel_jobs=limits["MaxParallelTrainingJobs"],
        ranges=_read_ranges(config["ParameterRanges"]),
        fixed={key: text for key, text in fixed.items() if not key.startswith(SERVICE_PREFIXES)},
        seconds=_seconds(job, "CreationTime", "HyperParameterTuningEndTime"),
        machines=f"{count} x {machine}",
        dollars_per_hour=price(machine, count),
        over=job.get("FailureReason", ""),
        trials=tuple(trials),
    )


def _build_trial(
    number: int,
    summary: Mapping[str, Any],
    job: Mapping[str, Any],
    log: str,
    *,
    fixed: Mapping[str, str],
) -> Trial:
    parameters = _parse_all(summary["TunedHyperParameters"])
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    state, reason = STATES.get(summary["TrainingJobStatus"], "running"), summary.get("FailureReason", "")
    if state != "running" and metric is None:
        state, reason = "failed", reason or "The service read no objective from its log."
    epochs = str(parameters.get("epochs") or fixed.get("epochs", 0)).strip('"')
    return Trial(
        number=number,
        state=state,
        parameters=parameters,
        objective=None if metric is None or state == "failed" else float(metric["Value"]),
        reason=reason if state == "failed" else "stopped early by SageMaker" if state == "stopped" else "",
        curve=tuple(read_curve(log)),
        epochs=int(epochs),
        seconds=float(
            job.get("BillableTimeInSeconds") or _seconds(summary, "TrainingStartTime", "TrainingEndTime")
        ),
        started=summary["CreationTime"].timestamp(),
        job=summary["TrainingJobName"],
    )


def _parse_all(strings: Mapping[str, str]) -> dict[str, Scalar]:
    """A trial's values; the service adds keys of its own."""
    return {
        name: parse_value(name, text)
        for name, text in strings.items()
        if not name.startswith(SERVICE_PREFIXES)
    }


def _read_ranges(ranges: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """ParameterRanges as in a recipe."""
    read: dict[str, dict[str, Any]] = {}
    for kind, key in RANGE_KEYS.items():
        for entry in ranges.get(key, ()):
            name = entry["Name"]
            if kind == "categorical":
                values = [parse_value(name, text) for text in entry["Values"]]
                read[name] = {"type": kind, "values": values}
            else:
                low, high = parse_value(name, entry["MinValue"]), parse_value(name, entry["MaxValue"])
                scale = "logarithmic" if entry.get("ScalingType") == "Logarithmic" else "linear"
                read[name] = {"type": kind, "low": low, "high": high, "scale": scale}
    return read


def _seconds(shown: Mapping[str, Any], first: str, last: str) -> float:
    """Between two times; to now where the last has not come."""
    if first not in shown:
        return 0.0
    end = shown.get(last) or datetime.datetime.now(datetime.UTC)
    return max(0.0, float((end - shown[first]).total_seconds()))


def _read_log(aws: Aws, name: str) -> str:
    tail = Tail(group=LOG_GROUP, name=name, lines=deque(maxlen=LOG_LINES))
    tail.read(aws)
    return "\n".join(tail.lines)
