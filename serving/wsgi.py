"""What gunicorn calls in the HTTP process: the pool of its children, and the app before it."""

from __future__ import annotations

import logging
import os

from flask import Flask

from serving import boot
from serving.app import create_app
from serving.pool import Pool
from serving.processes import start_child
from serving.settings import read_settings


def build_app() -> Flask:
    """The app; it answers /ping with 503 until the model is loaded."""
    settings = read_settings(os.environ)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    pool = Pool(
        boot.children,
        start_child=start_child,
        refuse=boot.stop_server,
        on_ready=boot.mark_ready,
        queue_limit=settings.queue_limit,
        stuck_seconds=settings.stuck_seconds,
    )
    pool.start()
    return create_app(pool, settings)
