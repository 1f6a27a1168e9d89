"""One trial of a search, as a process of its own: `python -m local.tuning_trial RECIPE --data D --output O`.

The end of its standard input stops the job in good order, and kills it when the grace is over: closing the
pipe is how the search stops a trial, and what happens by itself when the search is killed. What became of the
job is left in O/outcome.json.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from artifact.bundle import BundleError
from local.platform import LocalError
from local.training_job import STOP_GRACE_SECONDS, run_training_job
from training.recipe import read_recipe

OUTCOME = "outcome.json"
LOCK, JOB_LOCK = ".trial-lock", ".lock"
POLL_SECONDS = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 also for a job that was stopped; 1 for one that failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # until run_training_job passes it on
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the search's to answer
    if options.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, options.cores)
    lock = _lock(options.output)
    asked = threading.Event()
    threading.Thread(target=_stop_with_stdin, args=(asked,), daemon=True).start()
    started, failure = time.monotonic(), ""
    try:
        run_training_job(
            read_recipe(options.recipe),
            data=options.data,
            output=options.output,
            weights=options.weights,
            image=options.image,
            options=options.docker,
        )
    except (LocalError, BundleError, OSError) as error:
        failure = str(error)
        print(f"error: {failure}", file=sys.stderr)
    outcome = {
        # Asked to stop, a job ends before its time, or fails where it has not installed its handlers yet.
        "stopped": asked.is_set() if failure else (options.output / "checkpoints").is_dir(),
        "failure": failure,
        "seconds": round(time.monotonic() - started, 3),
    }
    write_outcome(options.output, outcome)
    os.close(lock)
    return 1 if failure else 0


def write_outcome(output: Path, outcome: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = output / f"{OUTCOME}.partial"
    partial.write_text(json.dumps(outcome) + "\n", encoding="utf-8")
    partial.replace(output / OUTCOME)


def read_outcome(output: Path) -> dict[str, Any] | None:
    """What became of the job, None where it was killed before it could say."""
    try:
        outcome: dict[str, Any] = json.loads((output / OUTCOME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return outcome


def wait_until_free(output: Path) -> None:
    """Until a trial that a killed search left in `output`, and its job, have ended.

    Raises LocalError where they do not within their grace.
    """
    deadline = time.monotonic() + STOP_GRACE_SECONDS + 30
    for name in (LOCK, JOB_LOCK):
        while not _is_free(output / name):
            if time.monotonic() > deadline:
                raise LocalError(f"A trial of an earlier search is still running in {output}; end it first.")
            time.sleep(POLL_SECONDS)


def _is_free(file: Path) -> bool:
    if not file.exists():
        return True
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _lock(output: Path) -> int:
    """For as long as this process lives: the job's own lock is free before its archive is written."""
    lock = os.open(output / LOCK, os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _stop_with_stdin(asked: threading.Event) -> None:
    """At the end of standard input SIGTERM, as the platform stops a job; SIGKILL when the grace is over."""
    while os.read(sys.stdin.fileno(), 1):  # not through a buffer, whose lock the interpreter needs to exit
        pass
    asked.set()
    itself = psutil.Process()
    while not itself.children():
        time.sleep(POLL_SECONDS)
    time.sleep(2 * POLL_SECONDS)  # until run_training_job, which has just started it, passes signals on
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_SECONDS)
    for process in itself.children(recursive=True):
        process.kill()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.tuning_trial", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image", help="in containers of it")
    parser.add_argument("--docker", action="append", default=[], help="one more word for `docker run`")
    parser.add_argument("--cores", type=_read_cores, default=(), help="such as 0,1: the trial's share")
    return parser


def _read_cores(text: str) -> tuple[int, ...]:
    return tuple(int(core) for core in text.split(",") if core)


if __name__ == "__main__":
    sys.exit(main())
