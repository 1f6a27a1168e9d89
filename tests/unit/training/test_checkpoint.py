"""Checkpoints survive a killed writer and refuse another job's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.checkpoint import KEPT, read_checkpoint, write_checkpoint
from training.job import JobError

IDENTITY = {"epochs": "3", "training data": "abc"}


def _write(directory: Path, step: int) -> Path:
    state = {"identity": IDENTITY, "step": step, "weights": torch.full((3,), float(step))}
    return write_checkpoint(directory, state, step=step)


def test_newest_checkpoint_is_read_and_old_ones_go(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        _write(tmp_path, step)

    state = read_checkpoint(tmp_path, identity=IDENTITY)

    assert state is not None and state["step"] == 100
    assert torch.equal(state["weights"], torch.full((3,), 100.0))
    assert len(list(tmp_path.iterdir())) == KEPT


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "absent", identity=IDENTITY) is None


@pytest.mark.parametrize("kept_bytes", [0, 10, 500])
def test_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path, kept_bytes: int) -> None:
    _write(tmp_path, 1)
    newest = _write(tmp_path, 2)
    newest.write_bytes(newest.read_bytes()[:kept_bytes])

    state = read_checkpoint(tmp_path, identity=IDENTITY)

    assert state is not None and state["step"] == 1


def test_file_left_by_a_killed_writer_is_ignored(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    (tmp_path / "step-000000002.partial").write_bytes(b"half")

    state = read_checkpoint(tmp_path, identity=IDENTITY)

    assert state is not None and state["step"] == 1


def test_checkpoint_of_another_job_is_refused_naming_what_differs(tmp_path: Path) -> None:
    _write(tmp_path, 1)

    with pytest.raises(JobError, match=r"epochs was '3' and is '4'\. Empty .* to start anew"):
        read_checkpoint(tmp_path, identity=IDENTITY | {"epochs": "4"})
