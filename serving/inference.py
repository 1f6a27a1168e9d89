"""A process that predicts: `python -m serving.inference`, with standard input for its socket.

The HTTP side starts one per core (serving/pool.py) and sends it whole requests. It holds no state worth
saving: killed, it is replaced, and what it had in hand goes to another.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from artifact.bundle import BundleError
from serving import wire
from serving.errors import StartError
from serving.handler import Predictor, model_fn, respond
from serving.messages import Query
from serving.settings import Settings, read_settings

JOBS_FD = 0
NICENESS = 5  # below the HTTP side, which then answers /ping at once on saturated cores
PR_SET_PDEATHSIG = 1  # prctl(2)

logger = logging.getLogger(__name__)


def main() -> None:
    """Load the model, say so, and answer until the socket closes."""
    sock = socket.socket(fileno=JOBS_FD)
    sock.setblocking(True)  # made by gevent it is not
    _depend_on_parent()
    faulthandler.enable()  # the HTTP side ends a stuck process with SIGABRT: its stacks go to the log
    settings = read_settings(os.environ)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.nice(NICENESS)
    started = time.monotonic()
    try:
        predictor = model_fn(
            settings.model_dir,
            engine=settings.engine,
            precision=settings.precision,
            num_threads=settings.threads_per_worker,
            cache_dir=settings.cache_dir,
        )
    except (StartError, BundleError, OSError) as error:
        wire.send(sock, {"error": f"Kennel cannot start: {error}"})
        return
    wire.send(sock, {"ready": describe(predictor, seconds=time.monotonic() - started)})
    try:
        serve(sock, predictor, settings)
    except (EOFError, OSError):  # the HTTP side is gone
        os._exit(0)


def describe(predictor: Predictor, *, seconds: float) -> dict[str, Any]:
    """What the HTTP side has to know of the model."""
    return {
        "precision": predictor.precision,
        "num_classes": len(predictor.labels),
        "capacity": predictor.concurrency + 1,  # the next request waits in the socket: no gap in between
        "seconds": round(seconds, 3),
    }


def serve(sock: socket.socket, predictor: Predictor, settings: Settings) -> None:
    """Answer request after request. Raises EOFError when the HTTP side closes the socket."""
    if predictor.concurrency == 1:
        while True:
            _answer(sock, wire.receive(sock), predictor, settings)
    lock = threading.Lock()
    with ThreadPoolExecutor(predictor.concurrency) as threads:
        while True:
            threads.submit(_answer, sock, wire.receive(sock), predictor, settings, lock)


def _answer(
    sock: socket.socket,
    message: tuple[dict[str, Any], bytes],
    predictor: Predictor,
    settings: Settings,
    lock: threading.Lock | None = None,
) -> None:
    fields, body = message
    answer = respond(Query(body, *fields["headers"]), predictor, max_pixels=settings.max_pixels)
    reply = {"id": fields["id"], "status": answer.status, "headers": answer.headers}
    if lock is None:
        wire.send(sock, reply, answer.body)
        return
    with lock:
        wire.send(sock, reply, answer.body)


def _depend_on_parent() -> None:
    """Die with the HTTP side, also when stuck; Ctrl-C and SIGTERM are for it to act upon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
