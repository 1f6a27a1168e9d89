"""gunicorn's configuration, as `container/serve` uses it; names gunicorn does not know it ignores."""

from __future__ import annotations

import os
import sys
from typing import Any

from serving import boot
from serving.errors import StartError
from serving.settings import read_settings, warn_of_misspelt_settings

try:
    _settings = read_settings(os.environ)
except StartError as error:
    sys.exit(f"Kennel cannot start: {error}")

bind = f"0.0.0.0:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"
threads = 4  # so that /ping answers while other threads predict
preload_app = False  # OpenVINO's threads do not survive a fork
timeout = 120  # of a worker whose main loop is stuck, loading included; SageMaker drops a request after 60 s
graceful_timeout = 25  # SageMaker kills the container 30 s after SIGTERM
keepalive = 75  # longer than SageMaker's 60 s, so that the other side closes idle connections first
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a heartbeat on disk can stall
control_socket_disable = True  # it would be written to $HOME, which may be read-only
loglevel = "warning"  # to stderr


def on_starting(server: Any) -> None:
    """The master, once, before it listens."""
    warn_of_misspelt_settings(os.environ, server.log)


def post_worker_init(worker: Any) -> None:
    """A worker, when its model is loaded and it is about to accept."""
    boot.mark_ready()


def child_exit(server: Any, worker: Any) -> None:
    """The master, after a worker ended: before any was ready there is no point in starting another."""
    if not boot.is_ready():
        boot.stop_server(
            "Kennel cannot start: a worker was killed before its model was loaded; "
            "choose an instance with more memory or lower KENNEL_WORKERS."
        )


def on_exit(server: Any) -> None:
    """The master, last."""
    if failure := boot.read_failure():
        sys.exit(failure)
