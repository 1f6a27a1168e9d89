"""container/train: what the trainer finds in its environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from local.platform import REPOSITORY


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param({}, "glibc.malloc.mmap_max=0", id="large tensors stay in the heap"),
        pytest.param({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, "glibc.malloc.check=1", id="the user's own"),
    ],
)
def test_allocator_is_told_before_the_trainer_starts(
    tmp_path: Path, given: dict[str, str], found: str
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$GLIBC_TUNABLES for $*"\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **given}

    said = subprocess.run(
        [REPOSITORY / "container/train", "train", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert said.startswith(found) and said.endswith("for -m training --help\n")
