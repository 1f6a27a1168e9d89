"""The page tells what the series holds: for a whole run, a killed one, a failed one, and several together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.watched_training import debugging_folder, small_network, train_watched
from training.debugging.report import REPORT_FILE, reporting
from training.debugging.report.__main__ import main
from training.debugging.report.run import RunError, find_series
from training.debugging.series import SERIES_FILE
from training.job import JobError

LARGEST_PAGE = 5_000_000
EXTERNAL = re.compile(r"""(src|href)\s*=\s*["']?(https?:|//)|@import|url\((?!#)""")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two epochs, its machine sampled and its operators profiled."""
    prefix = tmp_path_factory.mktemp("job")
    settings = {"profile_steps": "2", "profile_interval_ms": "20", "epochs": "4"}
    train_watched(prefix, small_network(), settings)
    return prefix


def make_page(*runs: Path) -> str:
    """The page of these runs, through the command line."""
    destination = runs[0] / "page.html"

    assert main([*map(str, runs), "--output", str(destination)]) == 0

    return destination.read_text(encoding="utf-8")


def copy_series(prefix: Path, destination: Path) -> Path:
    """The folder of the series, for a test to spoil."""
    return Path(shutil.copytree(debugging_folder(prefix), destination))


def test_page_of_a_run_has_every_part_and_loads_nothing(prefix: Path) -> None:
    page = make_page(prefix)

    for title in (
        "Learning curves", "Where the time of a step went", "By phase", "By kind of operator", "Over "
        "the training",
        "The machine", "Top operators", "Slowest steps", "Every other rule", "Could not be judged",
    ):  # fmt: skip
        assert title in page
    for drawn in ("Loss by step", "accuracy by step", "shares of a step", "use of the machine over time"):
        assert f"{drawn}" in page and "<svg" in page
    assert "12 steps of up to 8 images" in page and "aten::convolution" in page
    assert not EXTERNAL.search(page)
    assert len(page.encode()) < LARGEST_PAGE


def test_finding_has_its_evidence_and_advice(prefix: Path, tmp_path: Path) -> None:
    series = copy_series(prefix, tmp_path / "ill") / SERIES_FILE
    lines = [re.sub(r'"non_finite":\d+', '"non_finite":3', line) for line in series.read_text().splitlines()]
    series.write_text("\n".join(lines) + "\n")

    page = make_page(series.parent)

    assert "Findings, and what to do" in page
    assert "ExplodingTensor<small>at step 0</small>" in page
    assert "Divide learning_rate by 10" in page
    assert "evidence of ExplodingTensor" in page


def test_killed_run_has_a_page_that_says_so(prefix: Path, tmp_path: Path) -> None:
    series = copy_series(prefix, tmp_path / "killed") / SERIES_FILE
    whole = series.read_bytes()
    series.write_bytes(whole[: int(len(whole) * 0.6)])  # in the middle of a line, and nothing says `ended`

    page = make_page(series.parent)

    assert "The training was cut short." in page
    assert "and was killed after step" in page
    assert "Learning curves" in page


def test_failed_training_is_told_with_its_reason(prefix: Path, tmp_path: Path) -> None:
    directory = copy_series(prefix, tmp_path / "failed")

    with pytest.raises(JobError), reporting(directory, name="cnn"):
        raise JobError("The training loss is nan at epoch 2, step 3: lower learning_rate=100.")

    page = (directory / REPORT_FILE).read_text()
    assert "The training failed." in page
    assert "and failed: The training loss is nan at epoch 2, step 3: lower learning_rate=100." in page


def test_runs_are_compared_side_by_side(prefix: Path, tmp_path: Path) -> None:
    train_watched(tmp_path, small_network(), {"epochs": "3", "learning_rate": "0.001"})

    page = make_page(prefix, tmp_path)

    assert "2 runs side by side" in page
    assert "Loss of the runs by step" in page and "accuracy of the runs by step" in page
    assert "Best validation accuracy" in page and "Settings that differ" not in page  # facts are alike here
    assert page.count('<article class="run">') == 2


def test_run_without_a_series_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match=r"no series\.jsonl in .* debug=true"):
        find_series(tmp_path)

    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH; install it to run this test"
)
def test_page_opens_in_a_browser_without_a_complaint(prefix: Path, tmp_path: Path) -> None:
    make_page(prefix)

    done = subprocess.run(
        [
            *(
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'profile'}",
            ),
            *("--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"),
            (prefix / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stdout.count("<svg") >= 6
    assert "CONSOLE" not in done.stderr
