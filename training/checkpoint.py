"""Resumable training state under /opt/ml/checkpoints, which SageMaker copies to S3 as it changes.

Written beside the old one and renamed, so that a job killed while writing leaves the one before. Read with
weights_only: a checkpoint holds tensors and plain values.
"""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from training.job import JobError

logger = logging.getLogger(__name__)

KEPT = 2


def write_checkpoint(directory: Path, state: dict[str, Any], *, step: int) -> Path:
    """Write `state` as the checkpoint of optimizer step `step`; older ones than the last two go."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:09d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in sorted(directory.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return path


def read_checkpoint(directory: Path, *, identity: dict[str, str]) -> dict[str, Any] | None:
    """The newest readable checkpoint, None where there is none.

    Raises JobError when it belongs to another job: what `identity` says of hyperparameters and data differs.
    """
    for path in sorted(directory.glob("step-*.pt"), reverse=True):
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
