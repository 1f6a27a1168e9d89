"""What gunicorn calls in each worker: settings -> model -> app."""

from __future__ import annotations

import logging
import os
import time

from flask import Flask

from artifact.bundle import BundleError
from artifact.cores import available_cores
from serving.app import create_app
from serving.boot import refuse_to_start
from serving.errors import StartError
from serving.handler import model_fn
from serving.settings import read_settings

logger = logging.getLogger(__name__)


def build_app() -> Flask:
    """The app around the loaded model; a model that cannot load ends the server."""
    started = time.monotonic()
    try:
        settings = read_settings(os.environ)
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        num_threads = max(1, available_cores() // settings.workers)
        predictor = model_fn(
            settings.model_dir,
            engine=settings.engine,
            precision=settings.precision,
            num_threads=num_threads,
        )
    except (StartError, BundleError, OSError) as error:
        refuse_to_start(f"Kennel cannot start: {error}")
    logger.info(
        "event=ready seconds=%.2f precision=%s num_classes=%d workers=%d num_threads=%d port=%d",
        time.monotonic() - started,
        predictor.precision,
        len(predictor.labels),
        settings.workers,
        num_threads,
        settings.port,
    )
    return create_app(predictor, settings)
