"""Checkpoints survive a killed writer and a full disk, and refuse another job's."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch

from tests.small_disk import disk_of
from training.checkpoint import KEPT, DiskFull, read_checkpoint, write_checkpoint
from training.job import JobError

IDENTITY = {"epochs": "3", "training data": "abc"}


def _write(directory: Path, step: int, *, size: int = 3) -> Path:
    state = {"identity": IDENTITY, "step": step, "weights": torch.full((size,), float(step))}
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


SIZE = 25_000  # numbers: 100 kB a checkpoint


def test_full_disk_keeps_the_newest_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    with disk_of(150, tmp_path / "disk"):
        first = _write(tmp_path / "disk", 1, size=SIZE)

        with pytest.raises(DiskFull, match=r"No space left on device.*step-000000002\.pt"):
            _write(tmp_path / "disk", 2, size=SIZE)

        assert list((tmp_path / "disk").iterdir()) == [first]
        state = read_checkpoint(tmp_path / "disk", identity=IDENTITY)
        assert state is not None and state["step"] == 1


def test_disk_with_room_for_two_checkpoints_goes_on_with_the_newest(tmp_path: Path) -> None:
    with disk_of(250, tmp_path / "disk"):
        for step in (1, 2, 3, 4):
            _write(tmp_path / "disk", step, size=SIZE)

        state = read_checkpoint(tmp_path / "disk", identity=IDENTITY)
        assert state is not None and state["step"] == 4


def test_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(DiskFull, match="File too large"):
            _write(tmp_path, 2, size=SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    state = read_checkpoint(tmp_path, identity=IDENTITY)
    assert state is not None and state["step"] == 1


def test_what_lies_ahead_of_the_job_is_broken_and_goes(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    _write(tmp_path, 9).write_bytes(b"half")

    for step in (2, 3):
        _write(tmp_path, step)

    assert sorted(path.stem for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]
