"""What /metrics tells, in Prometheus's format, added up over the processes that answer HTTP.

Only these processes count. What a process that predicts measured comes with its answer
(`serving.telemetry.Report`), so that killing one loses nothing but the request it had in hand.

A request is only noted down; `publish` counts what was noted, every PUBLISH_SECONDS and before /metrics:
counting each on its way was a fifth of what a request costs the HTTP process (docs/decisions.md, 112).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.drift import DriftWindow, has_drifted, stability
from serving.metrics_files import VARIABLE

ROUTES = ("/ping", "/invocations", "/execution-parameters", "/metrics", "/openapi.json")
OTHER = "other"  # any path a scanner thinks of, as one
STAGES = ("decode", "queue", "infer", "encode")
# From a thumbnail's decode to SageMaker's 60 s; dense where a picture's few milliseconds lie.
SECONDS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
WINDOW = "kennel_drift_window"
PUBLISH_SECONDS = 0.5  # as far behind are, in one process's /metrics, the others
MAX_NOTED = 1000  # reports, should nobody publish


_Report: TypeAlias = tuple[Iterable[tuple[str, float]], Iterable[int], Iterable[tuple[int, ...]]]


class Model(NamedTuple):
    """Labels of kennel_model_info, whose value is always 1."""

    architecture: str
    precision: str
    engine: str
    num_classes: str
    created: str


class Metrics:
    """A process's share of the metrics and the way to all of them (see `metrics_files.prepare_process`)."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._own = own
        self.requests = Counter(
            "kennel_requests", "Requests answered.", ("route", "status"), registry=own
        )  # exposed as kennel_requests_total
        self.in_flight = 0
        self._in_flight = Gauge(
            "kennel_in_flight", "Requests being answered.", registry=own, multiprocess_mode="livesum"
        )
        self.queue_depth = 0
        self._queue_depth = Gauge(
            "kennel_queue_depth",
            "Requests waiting for a process that predicts.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.batch_size = Histogram(
            "kennel_batch_size", "Pictures predicted together.", buckets=BATCH_SIZES, registry=own
        )
        self.stages = Histogram(
            "kennel_stage_seconds",
            "Time a request spent in a stage.",
            ("stage",),
            buckets=SECONDS,
            registry=own,
        )
        self.restarts = Counter(
            "kennel_inference_restarts", "Processes that predict replaced after their death.", registry=own
        )
        self._model = Gauge(
            "kennel_model_info", "The model served.", Model._fields, registry=own, multiprocess_mode="livemax"
        )
        self._window = Gauge(
            WINDOW,
            "Of the last pictures, those in each bin of the validation baseline.",
            ("signal", "bin"),
            registry=own,
            multiprocess_mode="livesum",
        )
        self._baseline: Mapping[str, Sequence[int]] = {}
        self._drift = DriftWindow({})
        # `labels` takes longer than counting does.
        self._stages_by = {stage: self.stages.labels(stage) for stage in STAGES}
        self._noted_requests: dict[tuple[str, int], int] = {}
        self._noted_reports: list[_Report] = []

    def describe_model(self, model: Model, baseline: Mapping[str, Sequence[int]]) -> None:
        """Once the model is known; `baseline` is `artifact.baseline.Baseline.counts()`, {} without one."""
        self._model.labels(*model).set(1)
        self._baseline = baseline
        self._drift = DriftWindow(baseline)
        for signal, counts in baseline.items():
            for chosen in range(len(counts)):
                self._window.labels(signal, chosen)

    def count_request(self, path: str, status: int) -> None:
        """A request was answered."""
        key = (path if path in ROUTES else OTHER, status)
        self._noted_requests[key] = self._noted_requests.get(key, 0) + 1

    def record(
        self,
        stages: Iterable[tuple[str, float]],
        batches: Iterable[int],
        pictures: Iterable[tuple[int, ...]],
    ) -> None:
        """A `serving.telemetry.Report`, unpacked: it came with an answer."""
        self._noted_reports.append((stages, batches, pictures))
        if len(self._noted_reports) >= MAX_NOTED:
            self.publish()

    def publish(self) -> None:
        """Count what was noted since the last time."""
        self._in_flight.set(self.in_flight)
        self._queue_depth.set(self.queue_depth)
        requests, self._noted_requests = self._noted_requests, {}
        for (route, status), count in requests.items():
            self.requests.labels(route, str(status)).inc(count)
        reports, self._noted_reports = self._noted_reports, []
        changed: set[tuple[str, int]] = set()
        for stages, batches, pictures in reports:
            for stage, seconds in stages:
                self._stages_by[stage].observe(seconds)
            for size in batches:
                self.batch_size.observe(size)
            if self._baseline:
                changed |= self._drift.add(pictures)
        for signal, chosen in changed:
            self._window.labels(signal, chosen).set(self._drift.counts[signal][chosen])

    def collect(self) -> list[Metric]:
        """Every metric of all processes, and what follows from them all: the drift."""
        self.publish()
        directory = os.environ.get(VARIABLE)
        source = MultiProcessCollector(None, path=directory) if directory else self._own  # type: ignore[no-untyped-call]
        families = list(source.collect())
        return families + (_drift_families(self._baseline, families) if self._baseline else [])

    def render(self) -> tuple[bytes, str]:
        """The body of /metrics and its content type."""
        # The format every scraper reads; our names need no later one.
        return generate_latest(_Collected(self.collect())), CONTENT_TYPE_PLAIN_0_0_4


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _drift_families(baseline: Mapping[str, Sequence[int]], families: Iterable[Metric]) -> list[Metric]:
    window: dict[str, list[float]] = {signal: [0.0] * len(counts) for signal, counts in baseline.items()}
    for sample in (sample for family in families if family.name == WINDOW for sample in family.samples):
        window[sample.labels["signal"]][int(sample.labels["bin"])] += sample.value
    indices = stability(baseline, window)
    index = GaugeMetricFamily(
        "kennel_drift_psi", "Population stability index of the last pictures.", labels=["signal"]
    )
    for signal, value in indices.items():
        index.add_metric([signal], value)
    alert = GaugeMetricFamily("kennel_drift_alert", "1 where a signal's index is over 0.25.")
    alert.add_metric([], float(has_drifted(indices)))
    return [index, alert]
