"""The metrics as lines of CloudWatch's embedded metric format: what SageMaker logs, CloudWatch then graphs.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import Metric

from serving.metrics import STAGES, Metrics
from serving.metrics_files import is_first_process

NAMESPACE = "Kennel"
INTERVAL_SECONDS = 60.0  # CloudWatch's standard resolution


class Value(NamedTuple):
    """A metric's value and CloudWatch's name of its unit."""

    value: float
    unit: str


def emf_line(
    values: Mapping[str, Value],
    *,
    dimensions: Mapping[str, str],
    milliseconds: int,
    namespace: str = NAMESPACE,
) -> str:
    """One log event: metrics under one set of dimensions, at `milliseconds` after 1970."""
    directive = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": value.unit} for name, value in values.items()],
    }
    metadata = {"_aws": {"Timestamp": milliseconds, "CloudWatchMetrics": [directive]}}
    return json.dumps(
        metadata | dict(dimensions) | {name: value.value for name, value in values.items()}, allow_nan=False
    )


def flatten(families: Iterable[Metric]) -> dict[str, float]:
    """Sample name, with its label values behind slashes -> value."""
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def interval_values(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Value]:
    """What happened between two `flatten`ed collections: counts and means; gauges as they are."""
    change = {name: value - before.get(name, 0.0) for name, value in after.items()}
    values = {
        "Requests": Value(_answered(change, ""), "Count"),
        "Refused": Value(_answered(change, "4"), "Count"),
        "Overloaded": Value(_answered(change, "503"), "Count"),
        "Failed": Value(_answered(change, "5") - _answered(change, "503"), "Count"),
        "InferenceRestarts": Value(change.get("kennel_inference_restarts_total", 0.0), "Count"),
        "QueueDepth": Value(after.get("kennel_queue_depth", 0.0), "Count"),
        "InFlight": Value(after.get("kennel_in_flight", 0.0), "Count"),
    }
    for stage in STAGES:
        if count := change.get(f"kennel_stage_seconds_count/{stage}", 0.0):
            mean = change[f"kennel_stage_seconds_sum/{stage}"] / count
            values[f"{stage.capitalize()}Time"] = Value(1000 * mean, "Milliseconds")
    prefix = "kennel_drift_psi/"
    for name in (name for name in after if name.startswith(prefix)):
        values[f"DriftPsi_{name.removeprefix(prefix)}"] = Value(after[name], "None")
    if "kennel_drift_alert" in after:
        values["DriftAlert"] = Value(after["kennel_drift_alert"], "None")
    return values


def report_intervals(
    metrics: Metrics,
    dimensions: Mapping[str, str],
    *,
    seconds: float = INTERVAL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """A line per interval for ever, for a thread to print; of several processes only one yields any."""
    speaks = False
    before = flatten(metrics.collect())
    while True:
        sleep(seconds)
        speaks = speaks or is_first_process()
        after = flatten(metrics.collect())
        if speaks:
            values = interval_values(before, after)
            yield emf_line(values, dimensions=dimensions, milliseconds=int(1000 * time.time()))
        before = after


def _answered(change: Mapping[str, float], status: str) -> float:
    """Answers of /invocations whose status begins with this: /ping would drown them."""
    return sum(
        value
        for name, value in change.items()
        if name.startswith(f"kennel_requests_total//invocations/{status}")
    )
