"""CloudWatch's embedded metric format, against its specification's schema."""

from __future__ import annotations

import json

import jsonschema
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from serving.emf import Value, emf_line, flatten, interval_values, report_intervals
from serving.metrics import Metrics

UNITS = (
    "Seconds|Microseconds|Milliseconds|Bytes|Kilobytes|Megabytes|Gigabytes|Terabytes|Bits|Kilobits|Megabits"
    "|Gigabits|Terabits|Percent|Count|Bytes/Second|Count/Second|None"
)
NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
# "EMF schema" of the specification (the page serving/emf.py names), reworded.
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": NAME,
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "maxItems": 30,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": NAME,
                                        "Unit": {"type": "string", "pattern": f"^({UNITS})$"},
                                    },
                                    "additionalProperties": False,
                                },
                            },
                        },
                        "additionalProperties": False,
                    },
                },
            },
        }
    },
}


def collected(
    requests: dict[tuple[str, str], float], *, infer: tuple[float, float], psi: float
) -> list[Metric]:
    """Families as a scrape gives them; `infer` is count and sum of seconds."""
    answered = CounterMetricFamily("kennel_requests", "", labels=["route", "status"])
    for labels, value in requests.items():
        answered.add_metric(labels, value)
    stages = HistogramMetricFamily("kennel_stage_seconds", "", labels=["stage"])
    stages.add_metric(["infer"], [("+Inf", infer[0])], sum_value=infer[1])
    index = GaugeMetricFamily("kennel_drift_psi", "", labels=["signal"])
    index.add_metric(["blur"], psi)
    return [answered, stages, index, GaugeMetricFamily("kennel_queue_depth", "", value=5)]


def test_interval_is_the_difference_of_counters_and_the_last_of_gauges() -> None:
    served, busy, broken = (("/invocations", status) for status in ("200", "503", "500"))
    before = collected({served: 10, ("/ping", "200"): 5}, infer=(10, 1.0), psi=0.1)
    after = collected({served: 30, busy: 4, broken: 1, ("/ping", "200"): 99}, infer=(30, 1.4), psi=0.3)

    values = interval_values(flatten(before), flatten(after))

    assert values["Requests"] == Value(25, "Count")
    assert values["Overloaded"].value == 4
    assert values["Failed"].value == 1
    assert values["Refused"].value == 0
    assert round(values["InferTime"].value, 6) == 20.0
    assert values["DriftPsi_blur"] == Value(0.3, "None")
    assert values["QueueDepth"].value == 5
    assert "DecodeTime" not in values


def test_line_fits_the_specification() -> None:
    values = {"Requests": Value(3.0, "Count"), "InferTime": Value(12.5, "Milliseconds")}

    line = emf_line(
        values, dimensions={"Architecture": "cnn", "Precision": "int8"}, milliseconds=1_700_000_000_000
    )

    event = json.loads(line)
    jsonschema.validate(event, SCHEMA)
    assert "\n" not in line
    (directive,) = event["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Kennel"
    for target in [*directive["Dimensions"][0], *(metric["Name"] for metric in directive["Metrics"])]:
        assert target in event
    assert isinstance(event["Architecture"], str) and event["InferTime"] == 12.5


def test_every_interval_of_real_metrics_gives_a_valid_line() -> None:
    metrics = Metrics()
    naps: list[float] = []

    lines = report_intervals(metrics, {"Precision": "fp32"}, sleep=naps.append)
    first = json.loads(next(lines))
    metrics.count_request("/invocations", 200)
    metrics.record([("decode", 0.002)], [], [])
    second = json.loads(next(lines))

    assert naps == [60.0, 60.0]
    for event in (first, second):
        jsonschema.validate(event, SCHEMA)
    assert (first["Requests"], second["Requests"]) == (0, 1)
    assert round(second["DecodeTime"], 6) == 2.0
