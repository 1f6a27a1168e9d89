"""One training job as SageMaker lays it out under /opt/ml: channels, hyperparameters, hosts, output folders.

Any other prefix works the same, so that a laptop runs the same code. Files it does not know are ignored.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_PREFIX = Path("/opt/ml")
PREFIX_VARIABLE = "KENNEL_PREFIX"
FAILURE_CHARACTERS = 1024  # DescribeTrainingJob's FailureReason keeps this many
RESERVE = ".failure"  # beside the failure file

# The split folders and channel names people use, by the name this project uses.
SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val"),
    "test": ("test", "testing"),
}


class JobError(ValueError):
    """The job cannot run as asked; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Where a job's input lies and where its output goes."""

    prefix: Path
    raw_hyperparameters: dict[str, str]
    channels: dict[str, Path]
    current_host: str
    hosts: tuple[str, ...]
    network_interface: str
    sharded: bool  # each host has its own part of the training images
    checkpoint_dir: Path

    @property
    def model_dir(self) -> Path:
        """Becomes model.tar.gz."""
        return self.prefix / "model"

    @property
    def output_dir(self) -> Path:
        """Becomes output.tar.gz."""
        return self.prefix / "output" / "data"

    @property
    def failure_path(self) -> Path:
        """Its first 1024 characters become the job's FailureReason."""
        return self.prefix / "output" / "failure"


def read_job(prefix: Path) -> Job:
    """The job under `prefix`. Raises JobError where its config files cannot be used."""
    config_dir = prefix / "input" / "config"
    resources = _read_config(config_dir / "resourceconfig.json")
    checkpoints = _read_config(config_dir / "checkpointconfig.json")
    current_host = str(resources.get("current_host", "algo-1"))
    hosts = tuple(sorted(resources.get("hosts", [current_host])))  # the same order on all of them
    if current_host not in hosts:
        raise JobError(f"resourceconfig.json: current_host={current_host!r} is not among hosts={hosts}.")
    sharded = _find_sharded(_read_config(config_dir / "inputdataconfig.json")) if len(hosts) > 1 else False
    return Job(
        prefix=prefix,
        raw_hyperparameters={k: str(v) for k, v in _read_config(config_dir / "hyperparameters.json").items()},
        channels=_find_channels(prefix / "input" / "data"),
        current_host=current_host,
        hosts=hosts,
        network_interface=str(resources.get("network_interface_name", "")),
        sharded=sharded,
        checkpoint_dir=Path(checkpoints.get("LocalPath") or prefix / "checkpoints"),
    )


def reserve_failure(path: Path) -> None:
    """Room for the failure file, for a disk that is full by then; forget what an earlier job wrote."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError), path.with_name(RESERVE).open("wb") as file:
        file.write(b" " * FAILURE_CHARACTERS)
        file.flush()
        os.fsync(file.fileno())  # some file systems look for the room only now


def release_failure(path: Path) -> None:
    """The room is not needed any more."""
    path.with_name(RESERVE).unlink(missing_ok=True)


def write_failure(path: Path, text: str) -> None:
    """The cause first: SageMaker shows the first 1024 characters as the job's FailureReason.

    Of several processes the one that failed first is heard. On a full disk it takes the room reserved for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text[:FAILURE_CHARACTERS].encode()[:FAILURE_CHARACTERS]
    try:
        with contextlib.suppress(FileExistsError), path.open("xb", buffering=0) as file:
            file.write(content)
    except OSError as error:
        reserve = path.with_name(RESERVE)
        if error.errno != errno.ENOSPC or not reserve.exists():
            raise
        with reserve.open("r+b", buffering=0) as file:
            file.write(content)
            file.truncate()
        reserve.replace(path)


def find_splits(channels: Mapping[str, Path]) -> dict[str, Path]:
    """`train`, `valid`, `test` -> folder: a channel each, or folders inside one training channel.

    Raises JobError where there is no training data.
    """
    splits = {split: channels[name] for split, names in SPLITS.items() for name in names if name in channels}
    inside = splits.get("train") or next(
        (channels[name] for name in ("data", "dataset") if name in channels), None
    )
    if inside is not None:
        nested = {
            split: inside / name
            for split, names in SPLITS.items()
            for name in names
            if (inside / name).is_dir()
        }
        if "train" in nested:
            splits = splits | nested
    if "train" not in splits:
        found = ", ".join(sorted(channels)) or "none"
        raise JobError(f"There is no training data: give a channel named train (channels found: {found}).")
    return splits


def _find_channels(data_dir: Path) -> dict[str, Path]:
    if not data_dir.is_dir():
        return {}
    return {path.name: path for path in sorted(data_dir.iterdir()) if path.is_dir()}


def _find_sharded(channels: Mapping[str, Any]) -> bool:
    """Whether the training channel's images are dealt out to the hosts. Raises JobError for another's."""
    sharded = {
        name
        for name, channel in channels.items()
        if isinstance(channel, dict) and channel.get("S3DistributionType") == "ShardedByS3Key"
    }
    if others := sorted(sharded - set(SPLITS["train"])):
        raise JobError(
            f"Channel {others[0]} is ShardedByS3Key, but every host needs all of it: use FullyReplicated "
            "(only the channel train may be sharded)."
        )
    return bool(sharded)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise JobError(f"{path} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise JobError(f"{path} holds {type(content).__name__}, not an object.")
    return content
