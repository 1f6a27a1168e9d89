"""A job that is watched, as a process: killed without warning, started again, stopped by a rule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from local.platform import REPOSITORY, lay_out_training_job
from training.debugging.live import VERDICTS_FILE
from training.debugging.observers import FOLDER
from training.debugging.report import REPORT_FILE
from training.debugging.report.__main__ import main
from training.debugging.series import SERIES_FILE, TRAIN, read_series

HYPERPARAMETERS = {
    "architecture": "cnn",
    "image_size": "32",
    "resize": "32",
    "epochs": "1000",
    "batch_size": "16",
    "precision": "fp32",
    "quantize": "off",
    "doctor": "off",
    "checkpoint_steps": "3",
    "debug_interval": "1",
    "profile_interval_ms": "100",
}


def _start(prefix: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"KENNEL_PREFIX": str(prefix), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", "training"], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_killed_job_leaves_its_series_and_goes_on_until_a_rule_stops_it(shapes: Path, tmp_path: Path) -> None:
    channels = {split: shapes / split for split in ("train", "valid")}
    lay_out_training_job(tmp_path, hyperparameters=HYPERPARAMETERS, channels=channels)
    folder = tmp_path / "output" / "data" / FOLDER

    job = _start(tmp_path)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "checkpoints").glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=60)

    assert job.returncode == -signal.SIGKILL
    killed = read_series(folder)
    assert len(killed.steps) >= 2 and killed.tensors and killed.system
    assert "ended" not in {fact.name for fact in killed.facts}
    assert (folder / SERIES_FILE).read_text().count("\n") >= len(killed.steps)

    assert main([str(tmp_path)]) == 0
    last = max(step.step for step in killed.steps if step.mode == TRAIN)
    assert f"was killed after step {last}" in (folder / REPORT_FILE).read_text()

    rules = "LossNotDecreasing:num_steps=1;diff_percent=100;action=stop"
    config = tmp_path / "input" / "config" / "hyperparameters.json"
    config.write_text(json.dumps(HYPERPARAMETERS | {"debug_rules": rules}))
    again = _start(tmp_path)
    _, log = again.communicate(timeout=240)

    assert again.returncode == 1, log
    assert "resumed epoch=" in log
    assert (tmp_path / "output" / "failure").read_text().startswith("LossNotDecreasing stopped the job: ")
    page = (folder / REPORT_FILE).read_text()
    assert "The training failed." in page and "LossNotDecreasing stopped the job: " in page
    both = read_series(folder)
    assert both.steps[: len(killed.steps)] == killed.steps
    assert len(both.steps) > len(killed.steps)
    assert [fact.name for fact in both.facts].count("layers") == 2
    verdict = json.loads((folder / VERDICTS_FILE).read_text().splitlines()[-1])
    assert (verdict["rule"], verdict["status"]) == ("LossNotDecreasing", "IssuesFound")
