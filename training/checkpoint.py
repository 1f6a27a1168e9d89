"""Resumable training state under /opt/ml/checkpoints, which SageMaker copies to S3 as it changes.

Written beside the old one and renamed, so that a job killed while writing leaves the one before. Read with
weights_only: a checkpoint holds tensors and plain values. It needs no state of random generators and of the
sampler: both follow from (seed, epoch, step).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from training.job import JobError

logger = logging.getLogger(__name__)

KEPT = 2
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # disk, quota, `ulimit -f`


class DiskFull(OSError):
    """There is no room for a checkpoint; the newest one is still there."""


def write_checkpoint(directory: Path, state: dict[str, Any], *, step: int) -> Path:
    """Write `state` as the checkpoint of optimizer step `step`; older ones than the last two go.

    On a full disk all but the newest go first. Raises DiskFull where that is not enough.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:09d}.pt"
    # What a killed writer left, and what is ahead of this job: it was too broken to be resumed from.
    _remove([*directory.glob("step-*.partial"), *(old for old in _written(directory) if old > path)])
    try:
        _write(path, state)
    except DiskFull:
        spare = _written(directory)[:-1]
        if not spare:
            raise
        _remove(spare)
        _write(path, state)
    _remove(_written(directory)[:-KEPT])
    return path


def read_checkpoint(directory: Path, *, identity: dict[str, str]) -> dict[str, Any] | None:
    """The newest readable checkpoint, None where there is none.

    Raises JobError when it belongs to another job: what `identity` says of hyperparameters and data differs.
    """
    for path in reversed(_written(directory)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("checkpoint=%s is broken (%s): trying the one before", path, error)
            continue
        differing = sorted(name for name in identity if state["identity"].get(name) != identity[name])
        if differing:
            name = differing[0]
            raise JobError(
                f"{path} belongs to another job: {name} was {state['identity'].get(name)!r} and is "
                f"{identity[name]!r}. Empty {directory} to start anew, or set {name} back to resume."
            )
        return state
    return None


def _written(directory: Path) -> list[Path]:
    """Oldest first."""
    return sorted(directory.glob("step-*.pt"))


def _write(path: Path, state: dict[str, Any]) -> None:
    """All of it and safe from a power cut, or DiskFull and nothing."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch answers a failing write with an assertion of its own
        cause = error if isinstance(error, OSError) else error.__context__
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise DiskFull(cause.errno, cause.strerror, str(path)) from error
        raise
    partial.replace(path)
    _sync_folder(path.parent)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def _sync_folder(directory: Path) -> None:
    """The new name, too, has to reach the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system knows how
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
