"""A training job as SageMaker runs one: lay out the prefix, run `train`, stop it in time, pack the result."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from artifact.bundle import pack_artifact
from local.platform import (
    REPOSITORY,
    LocalError,
    container_environment,
    forward_signals,
    lay_out_training_job,
    stop_process,
    training_python,
)
from training.job import PREFIX_VARIABLE, SPLITS
from training.recipe import Recipe

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 120  # StopTrainingJob, and the end of MaxRuntimeInSeconds


def run_training_job(recipe: Recipe, *, data: Path, output: Path, weights: Path | None = None) -> Path:
    """Train and return `output`/model.tar.gz; a killed job of the same settings goes on from its checkpoint.

    Raises LocalError with the job's own failure sentence.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = _lock(output)
    channels = find_channels(data) | ({"weights": _weights_channel(weights, output)} if weights else {})
    job_name = f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    lay_out_training_job(output, hyperparameters=recipe.hyperparameters.to_strings(), channels=channels)
    environment = container_environment(
        training_python(), **{PREFIX_VARIABLE: str(output.resolve()), "TRAINING_JOB_NAME": job_name}
    )
    started = time.monotonic()
    command = [str(REPOSITORY / "container" / "train")]
    # A session of its own: Ctrl-C reaches this process only, which then stops the job in good order.
    with subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[lock]) as process:
        with forward_signals(process) as stopped:
            exit_code = _wait(process, recipe.training.max_run_seconds)
    os.close(lock)
    if exit_code != 0:
        raise LocalError(f"The training job failed (exit code {exit_code}): {_failure(output)}")
    if not stopped.is_set():
        shutil.rmtree(output / "checkpoints")  # the artifact is the result; a new job starts anew
    archive = output / "model.tar.gz"
    pack_artifact(output / "model", archive)
    logger.info("artifact=%s seconds=%.0f", archive, time.monotonic() - started)
    return archive


def find_channels(data: Path) -> dict[str, Path]:
    """train, valid and test folders under `data`, by any name in use. Raises LocalError without train."""
    channels = {
        split: data / name for split, names in SPLITS.items() for name in names if (data / name).is_dir()
    }
    if "train" not in channels:
        raise LocalError(
            f"{data} holds no train folder. Expected {data}/train/<label>/*.jpg, and beside it valid (or "
            "validation, val) and test."
        )
    return channels


def _lock(output: Path) -> int:
    """A lock the job inherits: it lasts until the trainer ends, though this process be killed."""
    lock = os.open(output / ".lock", os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LocalError(
            f"A training job is still running in {output}; wait for it or give another folder."
        ) from None
    return lock


def _weights_channel(weights: Path, output: Path) -> Path:
    """A channel is a folder: one with the file in it."""
    if not weights.exists():
        raise LocalError(f"There is no weights file {weights}.")
    if weights.is_dir():
        return weights
    channel = output / "weights-channel"
    shutil.rmtree(channel, ignore_errors=True)
    channel.mkdir(parents=True)
    (channel / weights.name).symlink_to(weights.resolve())
    return channel


def _wait(process: subprocess.Popen[bytes], max_run_seconds: int) -> int:
    try:
        return process.wait(max_run_seconds)
    except subprocess.TimeoutExpired:
        print(f"max_run_seconds={max_run_seconds} are over: stopping the job", file=sys.stderr)
        return stop_process(process, grace_seconds=STOP_GRACE_SECONDS)


def _failure(output: Path) -> str:
    path = output / "output" / "failure"
    return (
        path.read_text(encoding="utf-8") if path.is_file() else "it wrote no output/failure (was it killed?)"
    )
