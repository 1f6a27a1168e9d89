"""A training job as SageMaker runs one: lay out the prefix, run `train`, stop it in time, pack the result.

`train` is a plain process per host, or with an image a real container.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from artifact.bundle import pack_artifact
from artifact.cores import available_cores
from local.container import Container, private_network, removed_at_the_end, require_image
from local.platform import (
    REPOSITORY,
    LocalError,
    container_environment,
    forward_signals,
    free_port,
    lay_out_training_job,
    stop_process,
    training_python,
)
from training.job import DEFAULT_PREFIX, PREFIX_VARIABLE, SPLITS
from training.recipe import Recipe

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 120  # StopTrainingJob, and the end of MaxRuntimeInSeconds


def run_training_job(
    recipe: Recipe,
    *,
    data: Path,
    output: Path,
    weights: Path | None = None,
    image: str | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Train and return `output`/model.tar.gz; a killed job of the same settings goes on from its checkpoint.

    With `image` in containers, `options` being more of `docker run`'s. Raises LocalError with the job's own
    failure sentence.
    """
    if image:
        require_image(image)
    output.mkdir(parents=True, exist_ok=True)
    lock = _lock(output)
    channels = find_channels(data) | ({"weights": _weights_channel(weights, output)} if weights else {})
    job_name = f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    prefixes = host_prefixes(output, recipe.training.instance_count, in_containers=bool(image))
    shutil.rmtree(output / "hosts", ignore_errors=True)
    received = _lay_out(recipe, channels, output, prefixes, in_containers=bool(image))
    started = time.monotonic()
    with ExitStack() as ending:
        if image:
            containers = _containers(
                image, prefixes, job_name=job_name, channels=received, options=options, ending=ending
            )
            processes = [_start(container.command(), dict(os.environ), lock) for container in containers]
        else:
            train = [str(REPOSITORY / "container" / "train")]
            environments = _environments(prefixes, job_name)
            processes = [_start(train, environment, lock) for environment in environments]
        with forward_signals(*processes) as stopped:
            exit_codes = _wait(processes, recipe.training.max_run_seconds)
    os.close(lock)
    if any(exit_codes):
        raise LocalError(f"The training job failed. {_failures(prefixes, exit_codes)}")
    if not stopped.is_set():
        shutil.rmtree(output / "checkpoints")  # the artifact is the result; a new job starts anew
    archive = output / "model.tar.gz"
    pack_artifact(output / "model", archive)
    logger.info("artifact=%s seconds=%.0f", archive, time.monotonic() - started)
    return archive


def _lay_out(
    recipe: Recipe,
    channels: dict[str, Path],
    output: Path,
    prefixes: Mapping[str, Path],
    *,
    in_containers: bool,
) -> dict[str, dict[str, Path]]:
    """Each host's /opt/ml. Returns its channels: where training data is sharded, a part of the files each."""
    sharded = recipe.training.distribution == "ShardedByS3Key" and len(prefixes) > 1
    shards = deal_out(channels["train"], output / "shards", list(prefixes)) if sharded else {}
    received = {host: channels | ({"train": shards[host]} if sharded else {}) for host in prefixes}
    for host, prefix in prefixes.items():
        lay_out_training_job(
            prefix,
            hyperparameters=recipe.hyperparameters.to_strings(),
            channels=received[host],
            hosts=tuple(prefixes),
            current_host=host,
            sharded=["train"] if sharded else [],
            seen_as=DEFAULT_PREFIX if in_containers else None,
        )
    return received


def host_prefixes(output: Path, instance_count: int, *, in_containers: bool = False) -> dict[str, Path]:
    """Host -> its /opt/ml; the first one's is `output`. Several processes are hosts by loopback addresses."""
    pattern = "algo-{}" if in_containers or instance_count == 1 else "127.0.0.{}"
    hosts = [pattern.format(number) for number in range(1, instance_count + 1)]
    return {host: output / "hosts" / host if number else output for number, host in enumerate(hosts)}


def deal_out(folder: Path, destination: Path, hosts: Sequence[str]) -> dict[str, Path]:
    """Host -> a folder with its part of the files, one in turn to each, as ShardedByS3Key spreads S3's keys.

    By hard links, where the file system has them: what a symbolic link points to is not in a container.
    """
    shutil.rmtree(destination, ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        part = destination / hosts[number % len(hosts)] / path.relative_to(folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), part)
        except OSError:  # another file system
            shutil.copyfile(path, part)
    return {host: destination / host for host in hosts}


def _start(command: Sequence[str], environment: dict[str, str], lock: int) -> subprocess.Popen[bytes]:
    """One host's `train`, which keeps the lock for as long as it runs."""
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process only, which then stops the job in good order
        pass_fds=[lock],
    )


def _environments(prefixes: Mapping[str, Path], job_name: str) -> list[dict[str, str]]:
    """Of a process per host."""
    variables = {"TRAINING_JOB_NAME": job_name, "MASTER_PORT": str(free_port())}
    return [
        container_environment(training_python(), **{PREFIX_VARIABLE: str(prefix.resolve())}, **variables)
        for prefix in prefixes.values()
    ]


def _containers(
    image: str,
    prefixes: Mapping[str, Path],
    *,
    job_name: str,
    channels: Mapping[str, Mapping[str, Path]],
    options: Sequence[str],
    ending: ExitStack,
) -> list[Container]:
    """One per host, on a network of their own where there are several; all are gone when `ending` ends.

    `channels` are each host's.
    """
    together: list[str] = []
    if len(prefixes) > 1:  # each with its share of this machine: threads that compete for cores only spin
        share = max(1, available_cores() // len(prefixes))
        together = ["--network", ending.enter_context(private_network()), "--cpus", str(share)]
    containers = []
    for host, prefix in prefixes.items():
        mounts = {f"{DEFAULT_PREFIX}/input/data/{name}:ro": path for name, path in channels[host].items()}
        for folder in ("model", "output", "output/data", "checkpoints"):
            (prefix / folder).chmod(0o777)  # whichever user the image runs as
        container = Container(
            image=image,
            arguments=("train",),
            environment={"TRAINING_JOB_NAME": job_name},
            mounts={str(DEFAULT_PREFIX): prefix, **mounts},
            options=(*together, *(["--network-alias", host] if together else []), *options),
        )
        ending.enter_context(removed_at_the_end(container))
        containers.append(container)
    return containers


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
    shutil.copyfile(weights, channel / weights.name)  # a link would dangle in a container
    return channel


def _wait(processes: Sequence[subprocess.Popen[bytes]], max_run_seconds: int) -> list[int]:
    deadline = time.monotonic() + max_run_seconds
    try:
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        print(f"max_run_seconds={max_run_seconds} are over: stopping the job", file=sys.stderr)
        return stop_process(*processes, grace_seconds=STOP_GRACE_SECONDS)


def _failures(prefixes: Mapping[str, Path], exit_codes: Sequence[int]) -> str:
    """A sentence from every host that failed."""
    return " ".join(
        f"{host} (exit code {exit_code}): {_failure(prefix)}"
        for (host, prefix), exit_code in zip(prefixes.items(), exit_codes, strict=True)
        if exit_code != 0
    )


def _failure(prefix: Path) -> str:
    path = prefix / "output" / "failure"
    return (
        path.read_text(encoding="utf-8") if path.is_file() else "it wrote no output/failure (was it killed?)"
    )
