"""The fault script for training jobs, in its short form: a killed trainer and a full disk, same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from local.platform import REPOSITORY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk")
def test_killed_job_and_full_disk_end_with_the_weights_of_an_undisturbed_job() -> None:
    command = [sys.executable, "-m", "chaos.training", "--runs", "2", "--only", "disk,kill"]
    seed = str(os.getpid())  # every time at other steps

    done = subprocess.run(
        [*command, "--seed", seed], cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )

    assert done.returncode == 0, done.stdout + done.stderr
    disk, kill, last = done.stdout.splitlines()
    assert disk.startswith("PASS disk:") and "finished exit_code=0" in disk
    assert kill.startswith("PASS kill:") and "was killed (SIGKILL)" in kill
    runs = json.loads(last)["runs"]
    assert runs[1]["resumed_from"] >= runs[1]["at_step"] > 0
