"""Processes that are started, stopped and failing together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TRAPPED = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done"


def _launch(*scripts: str, last_seconds: float = 90.0) -> subprocess.Popen[str]:
    """In a process of its own, because it takes the signals over."""
    code = (
        "import sys; from training import launch; launch.LAST_SECONDS = float(sys.argv[1]); "
        "sys.exit(launch.run_together([['sh', '-c', script] for script in sys.argv[2:]]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(last_seconds), *scripts],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        pytest.param(["exit 0", "sleep 0.5"], 0, id="good"),
        pytest.param(["sleep 0.5", "exit 3"], 1, id="one fails"),
        pytest.param(["kill -9 $$", "exit 0"], 1, id="one is killed"),
    ],
)
def test_one_failure_is_the_failure_of_all(scripts: list[str], expected: int) -> None:
    launched = _launch(*scripts)
    launched.communicate(timeout=30)

    assert launched.returncode == expected


def test_process_that_outlasts_a_failed_one_is_killed() -> None:
    launched = _launch("exec sleep 600", "exit 3", last_seconds=0.5)
    launched.communicate(timeout=30)

    assert launched.returncode == 1


def test_sigterm_reaches_every_process() -> None:
    launched = _launch(TRAPPED, TRAPPED)
    assert launched.stdout is not None
    assert [launched.stdout.readline() for _ in range(2)] == ["ready\n"] * 2

    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=30)

    assert launched.returncode == 0
