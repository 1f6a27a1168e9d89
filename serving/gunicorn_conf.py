"""gunicorn's configuration, as `container/serve` uses it; names gunicorn does not know it ignores."""

from __future__ import annotations

import os
import sys
from typing import Any

from serving import boot
from serving.errors import StartError
from serving.metrics_files import forget_process, make_directory, remove_directory
from serving.processes import Child, kill_children, start_children
from serving.settings import read_settings, warn_of_misspelt_settings

try:
    _settings = read_settings(os.environ)
except StartError as error:
    sys.exit(f"Kennel cannot start: {error}")

bind = f"0.0.0.0:{_settings.port}"
workers = _settings.fronts  # HTTP processes; those that predict are their children
worker_class = "serving.front.Front"
worker_connections = 4000  # a slow client holds one, and no core
timeout = 30  # of an HTTP process whose event loop is stuck
graceful_timeout = 25  # SageMaker kills the container 30 s after SIGTERM
keepalive = 75  # longer than SageMaker's 60 s, so that the other side closes idle connections first
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a heartbeat on disk can stall
control_socket_disable = True  # it would be written to $HOME, which may be read-only
loglevel = "warning"  # to stderr

# Which of the processes that predict belong to which HTTP process.
_free_shares = [range(front, _settings.workers, workers) for front in range(workers)]
_first_children: dict[range, list[Child]] = {}


def on_starting(server: Any) -> None:
    """The master, once, before it listens. The first model loads while gunicorn and Flask are imported."""
    warn_of_misspelt_settings(os.environ, server.log)
    server.metrics_directory = make_directory()
    _first_children.update({share: start_children(share) for share in _free_shares})


def pre_fork(server: Any, worker: Any) -> None:
    """The master, before it forks an HTTP process: the children that predict load meanwhile."""
    worker.share = _free_shares.pop(0)
    worker.children = _first_children.pop(worker.share, None) or start_children(worker.share)


def post_fork(server: Any, worker: Any) -> None:
    """The HTTP process, right after it was forked."""
    boot.children = worker.children


def child_exit(server: Any, worker: Any) -> None:
    """The master, after an HTTP process ended: before the model was loaded there is no point in another."""
    kill_children(worker.children)
    forget_process(worker.pid)
    _free_shares.append(worker.share)
    if not boot.is_ready():
        boot.stop_server(
            "Kennel cannot start: a process was killed before its model was loaded; "
            "choose an instance with more memory or lower KENNEL_WORKERS."
        )


def on_exit(server: Any) -> None:
    """The master, last."""
    remove_directory(server.metrics_directory)
    if failure := boot.read_failure():
        sys.exit(failure)
