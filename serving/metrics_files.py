"""The folder in which the processes that answer HTTP keep their metrics, so that each can tell those of all.

prometheus_client maps a file per process and kind: what a killed process counted stays. It reads the variable
when it is imported, so the master names the folder first; this module does not import it before it must.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FILE_BYTES = 256 * 1024  # of each; all our metrics with every label take a tenth of it
_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")  # as prometheus_client names its files
_LOCK = "emf.lock"

logger = logging.getLogger(__name__)


def make_directory() -> Path | None:
    """gunicorn's master, before it forks: a fresh folder, since an old one's numbers would be added up.

    None where no temporary folder can be written: each process then counts in memory, for itself alone.
    """
    os.environ.pop(VARIABLE, None)
    try:
        directory = Path(tempfile.mkdtemp(prefix="kennel-metrics-"))
    except OSError as error:
        logger.warning("event=metrics_in_memory reason=%s", error)
        return None
    os.environ[VARIABLE] = str(directory)
    return directory


def remove_directory(directory: Path | None) -> None:
    """gunicorn's master, last."""
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def forget_process(pid: int) -> None:
    """gunicorn's master, after a process died: its gauges (queue, in flight) end, its counters stay.

    Without prometheus_client's own function for it: processes forked from a master that had imported the
    library could no longer choose to count in memory.
    """
    for path in Path(os.environ[VARIABLE]).glob(f"gauge_live*_{pid}.db") if VARIABLE in os.environ else ():
        path.unlink(missing_ok=True)


def prepare_process() -> bool:
    """A process that answers HTTP, before it imports `serving.metrics`: make its files, blocks and all.

    prometheus_client would make them sparse, and a write into a mapped file that finds no block left
    kills the process (SIGBUS). Where the disk is full, False: it then counts in memory, for itself alone.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        return False
    files = [Path(directory) / f"{kind}_{os.getpid()}.db" for kind in _KINDS]
    try:
        for path in files:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        return True
    except OSError as error:
        for path in files:
            path.unlink(missing_ok=True)
        del os.environ[VARIABLE]
        logger.warning("event=metrics_in_memory reason=%s", error)
        return False


def is_first_process() -> bool:
    """Whether this process may speak for all: one at a time, and another one after its death."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        return True
    descriptor = os.open(Path(directory) / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True  # the descriptor stays open: the lock ends with the process
    except BlockingIOError:
        os.close(descriptor)
        return False
