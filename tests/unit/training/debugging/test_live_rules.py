"""Rules during a training: verdicts as they change, and the action stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.watched_training import debugging_folder, small_network, train_watched
from training.debugging.live import VERDICTS_FILE
from training.job import JobError

IMPATIENT = "LossNotDecreasing:num_steps=1;diff_percent=100"  # no loss ever falls by that much


def _verdicts(prefix: Path) -> list[dict[str, object]]:
    lines = (debugging_folder(prefix) / VERDICTS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_verdicts_of_all_rules_are_written_once_each(tmp_path: Path) -> None:
    train_watched(tmp_path, small_network(), {"debug_rules": f"VanishingGradient,{IMPATIENT}"})

    verdicts = {str(verdict["rule"]): verdict for verdict in _verdicts(tmp_path)}
    assert verdicts["VanishingGradient"]["status"] == "NoIssuesFound"
    assert verdicts["LossNotDecreasing"]["status"] == "IssuesFound"
    assert verdicts["LossNotDecreasing"]["action"] == "report"
    changes = [(verdict["rule"], verdict["status"], verdict["step"]) for verdict in _verdicts(tmp_path)]
    assert len(changes) == len(set(changes))


def test_rule_that_may_stop_the_job_does_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="LossNotDecreasing stopped the job: "):
        train_watched(
            tmp_path, small_network(), {"debug_rules": f"{IMPATIENT};action=stop", "epochs": "1000"}
        )

    assert _verdicts(tmp_path)[-1]["action"] == "stop"


def test_rule_that_reports_lets_the_training_finish(tmp_path: Path) -> None:
    _, progress = train_watched(tmp_path, small_network(), {"debug_rules": IMPATIENT})

    assert progress.epoch == 2
