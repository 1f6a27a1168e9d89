"""What the harness knows of a job that it killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.training_job import TrainingJob


@pytest.mark.parametrize(
    ("in_place", "expected"),
    [
        pytest.param([12, 15], 15, id="announced"),
        pytest.param([15, 16], 16, id="killed before the word"),
        pytest.param([12], 15, id="announced and lost"),
    ],
)
def test_checkpoint_counts_as_written_once_announced_or_in_place(
    in_place: list[int], expected: int, tmp_path: Path
) -> None:
    job = TrainingJob(tmp_path / "job", tmp_path)
    job.checkpoints.mkdir(parents=True)
    for step in in_place:
        (job.checkpoints / f"step-{step:09d}.pt").touch()
    (job.checkpoints / "step-000000018.partial").touch()
    (tmp_path / "job.log").write_text("".join(f"checkpoint=/x/step-{step:09d}.pt\n" for step in (12, 15)))

    assert job.written() == expected
