"""What gunicorn calls in the HTTP process: the pool of its children, the metrics, and the app before them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gevent
from flask import Flask

from serving import boot, logs
from serving.app import create_app
from serving.messages import Report
from serving.metrics_files import prepare_process
from serving.pool import Pool
from serving.processes import start_child
from serving.settings import read_settings

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from serving.metrics import Metrics


def build_app() -> Flask:
    """The app; it answers /ping with 503 until the model is loaded."""
    settings = read_settings(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    prepare_process()
    from serving.metrics import Metrics  # prometheus_client looks for the files when it is imported

    metrics = Metrics()
    pool = Pool(
        boot.children,
        start_child=start_child,
        refuse=boot.stop_server,
        events=_Events(metrics),
        queue_limit=settings.queue_limit,
        stuck_seconds=settings.stuck_seconds,
    )
    pool.start()
    gevent.spawn(keep_published, metrics)
    if settings.emf:
        gevent.spawn(_print_emf, metrics)
    return create_app(pool, settings, metrics)


class _Events:
    """The pool's news, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def ready(self, info: dict[str, Any]) -> None:
        from serving.metrics import Model

        model = Model(*info["model"])
        self._metrics.describe_model(model, info["baseline"])
        boot.mark_ready()
        logger.info(
            "event=ready precision=%s architecture=%s num_classes=%s engine=%s",
            model.precision,
            model.architecture,
            model.num_classes,
            model.engine,
        )

    def restarted(self) -> None:
        self._metrics.restarts.inc()

    def queued(self, waiting: int) -> None:
        self._metrics.queue_depth = waiting

    def answered(self, report: Report, *, queue_seconds: float) -> None:
        stages, batches, pictures = report
        self._metrics.record([("queue", queue_seconds), *stages], batches, pictures)

    def watched(self, pictures: Sequence[tuple[int, ...]]) -> None:
        self._metrics.record([], [], pictures)


def keep_published(metrics: Metrics) -> None:
    """For those who ask another HTTP process for /metrics."""
    from serving.metrics import PUBLISH_SECONDS

    while True:
        gevent.sleep(PUBLISH_SECONDS)
        metrics.publish()


def _print_emf(metrics: Metrics) -> None:
    from serving.emf import report_intervals

    dimensions = {"Endpoint": os.environ.get("SAGEMAKER_ENDPOINT_NAME", "local")}
    for line in report_intervals(metrics, dimensions, sleep=gevent.sleep):
        print(line, flush=True)
