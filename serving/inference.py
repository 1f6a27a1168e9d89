"""A process that predicts: `python -m serving.inference INDEX [explain]`, with standard input for its socket.

The HTTP side starts one per core (serving/pool.py) and sends it whole requests. It holds no state worth
saving: killed, it is replaced, and what it had in hand goes to another.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from artifact.bundle import BundleError, Manifest, open_bundle
from serving import logs, wire
from serving.errors import StartError
from serving.explain import can_explain
from serving.gathering import Gathering
from serving.handler import Predictor, load_explainer, model_fn, respond
from serving.messages import TIMING, Query
from serving.options import Options, build_options
from serving.overrides import OverriddenPredictor
from serving.processes import EXPLAIN
from serving.settings import read_settings
from serving.telemetry import WatchedPredictor, collect

JOBS_FD = 0
NICENESS = 5  # below the HTTP side, which then answers /ping at once on saturated cores
IDLE_SECONDS = 0.05  # without a request: then what was held back for the metrics is sent
EXPLAINING_NICENESS = 19  # predictions go first; while the model is loaded, and where there is no idle class
PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Load the model, say so, and answer until the socket closes."""
    sock = socket.socket(fileno=JOBS_FD)
    sock.setblocking(True)  # made by gevent it is not
    channel = wire.Channel(sock)
    _depend_on_parent()
    faulthandler.enable()  # the HTTP side ends a stuck process with SIGABRT: its stacks go to the log
    settings = read_settings(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    explains = sys.argv[2:] == [EXPLAIN]
    if not explains:
        _keep_to_one_core(int(sys.argv[1]), settings.workers)
    os.nice(EXPLAINING_NICENESS if explains else NICENESS)
    load = load_explainer if explains else partial(model_fn, allow_code=settings.allow_code)
    try:
        predictor = load(
            settings.model_dir,
            engine=settings.engine,
            precision=settings.precision,
            num_threads=settings.threads_per_worker,
            cache_dir=settings.graph_cache,
            public_key=settings.public_key,
        )
        manifest = open_bundle(settings.model_dir).manifest
    except (StartError, BundleError, OSError) as error:
        channel.send({"error": f"Kennel cannot start: {error}"})
        return
    if explains:
        _run_when_idle()
    channel.send({"ready": describe(predictor, manifest, engine=settings.engine)})
    if not isinstance(predictor, OverriddenPredictor) and not explains:
        if predictor.concurrency == 1:
            predictor = Gathering(predictor)
        predictor = WatchedPredictor(predictor, manifest.baseline)
    with suppress(EOFError, OSError):  # the HTTP side is gone
        serve(channel, predictor, build_options(settings))


def _keep_to_one_core(index: int, num_processes: int) -> None:
    """Where each core has its process: else two are at times on one for 20 ms while another idles.

    With fewer processes than cores nothing is gained, and several containers would choose the same ones.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) == num_processes:
        os.sched_setaffinity(0, {cores[index]})


def _run_when_idle() -> None:
    """Only on a core with nothing else to do: SCHED_IDLE of sched(7), a fifth of the share of niceness 19."""
    with suppress(AttributeError, OSError):  # not on this system
        for thread in Path("/proc/self/task").iterdir():  # the engine's too
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def describe(predictor: Predictor, manifest: Manifest, *, engine: str) -> dict[str, Any]:
    """What the HTTP side has to know of the model."""
    return {
        "precision": predictor.precision,
        "capacity": _count_together(predictor) + 1,  # the next request waits in the socket: no gap in between
        "transforms": predictor.concurrency + 1,  # without which it would idle, for Batch Transform
        "model": [
            manifest.architecture,
            predictor.precision,
            engine,
            str(len(predictor.labels)),
            manifest.created,
        ],
        "baseline": manifest.baseline.counts() if manifest.baseline else {},
        "card": build_card(predictor, manifest),
        "explanation": "" if isinstance(predictor, OverriddenPredictor) else manifest.explanation,
    }


def _count_together(predictor: Predictor) -> int:
    """Requests that it answers at once."""
    in_turn = isinstance(predictor, OverriddenPredictor) or can_explain(predictor)
    return predictor.concurrency if in_turn or predictor.concurrency > 1 else predictor.max_batch


def build_card(predictor: Predictor, manifest: Manifest) -> dict[str, Any]:
    """The model in short, for people."""
    return {
        "architecture": manifest.architecture,
        "labels": list(predictor.labels),
        "metrics": manifest.metrics,
        "precision": predictor.precision,
        "created": manifest.created,
        "explanation": "" if isinstance(predictor, OverriddenPredictor) else manifest.explanation,
    }


def serve(channel: wire.Channel, predictor: Predictor, options: Options) -> None:
    """Answer request after request. Raises EOFError when the HTTP side closes the socket."""
    requests = _Requests(channel, predictor, options)
    if predictor.concurrency > 1:
        with ThreadPoolExecutor(predictor.concurrency) as threads:
            while True:
                threads.submit(requests.receive())
    while isinstance(predictor, WatchedPredictor):
        if predictor.is_holding and not channel.wait(IDLE_SECONDS):
            requests.say({"pictures": predictor.measure_held()})
        predictor.run_requests(requests.receive(), requests.at_hand)
    while True:
        requests.receive()()


class _Requests:
    """From the HTTP side, each a function that answers it."""

    def __init__(self, channel: wire.Channel, predictor: Predictor, options: Options) -> None:
        self._channel = channel
        self._predictor = predictor
        self._options = options
        self._lock = threading.Lock()

    def receive(self) -> Callable[[], None]:
        """The next one, waited for."""
        return partial(self._answer, *self._channel.receive())

    def at_hand(self, most: int) -> Iterator[Callable[[], None]]:
        """Those that have come."""
        for _ in range(most):
            if not self._channel.wait(0):
                return
            yield self.receive()

    def say(self, fields: dict[str, Any], body: bytes = b"") -> None:
        """To the HTTP side, from any thread."""
        with self._lock:
            self._channel.send(fields, body)

    def _answer(self, fields: dict[str, Any], body: bytes) -> None:
        # A thousand pictures may take minutes: each second it says that it is not stuck.
        with logs.about(*fields["about"]), collect(beat=lambda: self.say({"id": fields["id"]})) as notes:
            answer = respond(Query(body, *fields["headers"]), self._predictor, self._options)
        reply = {
            "id": fields["id"],
            "status": answer.status,
            "headers": answer.headers | {TIMING: notes.timing()},
            "report": tuple(notes.report()),
        }
        self.say(reply, answer.body)


def _depend_on_parent() -> None:
    """Die with the HTTP side, also when stuck; Ctrl-C and SIGTERM are for it to act upon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
