"""`python -m local tune`: real trials; killed, stopped early, failing, on two instances."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from artifact.bundle import unpack_artifact
from chaos.kill_tuning import read_ended, torment, tuning_command
from local.platform import REPOSITORY
from tests.conftest import run_local
from training.recipe import read_recipe
from tuning.results import Results, read_results

RECIPE = """
name = "tiny"
[hyperparameters]
architecture = "cnn"
image_size = 32
resize = 36
batch_size = 16
learning_rate = 0.02
precision = "fp32"
doctor = "off"
{hyperparameters}
[tuning]
objective = "{objective}"
direction = "maximize"
{tuning}
"""


def write_tiny(
    folder: Path, tuning: str, *, hyperparameters: str = "", objective: str = "best_validation_top1_accuracy"
) -> Path:
    """A recipe of a small, quick network."""
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(tuning=tuning, hyperparameters=hyperparameters, objective=objective))
    return path


def tune(recipe: Path, data: Path, output: Path, *options: str, check: bool = True) -> str:
    """Search to the end; what it said on stderr."""
    arguments = ["tune", str(recipe), "--data", str(data), "--output", str(output), *options]
    done = run_local(*arguments)
    assert not check or done.returncode == 0, done.stderr
    return done.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Tormented:
    """A search that was killed on its way."""

    output: Path
    faults: list[str]
    trials: int
    results: Results


@pytest.fixture(scope="module")
def tormented(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Tormented:
    """Three trials, two kills; `python -m chaos.kill_tuning --kills 10` goes further."""
    output = tmp_path_factory.mktemp("tormented")
    seed = int.from_bytes(os.urandom(4), "big")
    verdict = torment(tuning_command(shapes, output, trials=3), output, kills=2, seed=seed)
    return Tormented(
        output=output,
        faults=[*verdict.faults, *([f"seed={seed}"] if verdict.faults else [])],
        trials=verdict.trials,
        results=read_results(output),
    )


def test_killed_search_repeats_no_trial_and_loses_none(tormented: Tormented) -> None:
    assert tormented.faults == []
    assert tormented.trials == 3
    assert [trial.state for trial in tormented.results.trials] == ["completed"] * 3
    values = {tuple(trial.parameters.items()) for trial in tormented.results.trials}
    assert len(values) == 3


def test_every_trial_left_its_model_and_its_curve(tormented: Tormented) -> None:
    for trial in tormented.results.trials:
        assert (tormented.output / trial.job / "model.tar.gz").is_file()
        assert len(trial.curve) == 2 and trial.seconds > 0
        assert trial.objective == trial.curve[-1]["best_validation_top1_accuracy"]


def test_trials_do_not_see_the_test_split(tormented: Tormented) -> None:
    assert not any("test_top1_accuracy" in row for trial in tormented.results.trials for row in trial.curve)


def test_search_that_is_over_only_tells_what_it_found(tormented: Tormented, shapes: Path) -> None:
    before = read_ended(tormented.output)
    command = tuning_command(shapes, tormented.output, trials=3)

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["trials"] == 3
    assert read_ended(tormented.output) == before


def test_best_recipe_trains_without_editing(tormented: Tormented, shapes: Path, tmp_path: Path) -> None:
    best = tormented.results.best
    assert best
    path = tormented.output / "best.toml"
    recipe = read_recipe(path)
    assert {name: getattr(recipe.hyperparameters, name) for name in best.parameters} == best.parameters
    assert (recipe.hyperparameters.image_size, recipe.hyperparameters.quantize) == (32, "auto")

    run_local(
        *("train", str(path), "--data", str(shapes), "--output", str(tmp_path), "--set", "quantize=off"),
        check=True,
    )

    history = json.loads((tmp_path / "output/data/metrics.json").read_text())["history"]
    assert max(row["validation_top1_accuracy"] for row in history) == pytest.approx(best.objective, abs=1e-6)


def test_unlucky_trials_fail_with_their_reason_and_the_search_goes_on(shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    broken = next((data / "train/circle").iterdir())
    broken.write_bytes(broken.read_bytes()[:100])
    grid = (
        "strategy = 'Grid'\nmax_jobs = 4\n"
        "[tuning.ranges.max_unreadable]\ntype = 'categorical'\nvalues = [0.0, 1.0]\n"
        "[tuning.ranges.learning_rate]\ntype = 'categorical'\nvalues = [100.0, 0.02]\n"
    )
    recipe = write_tiny(tmp_path, grid, hyperparameters="epochs = 1\nwarmup_epochs = 0.0")

    told = tune(recipe, data, tmp_path / "out")

    results = read_results(tmp_path / "out")
    corrupt, corrupt_too, diverged, lucky = results.trials
    assert [trial.state for trial in results.trials] == ["failed", "failed", "failed", "completed"]
    assert broken.name in corrupt.reason and corrupt.reason == corrupt_too.reason
    assert "The training loss is" in diverged.reason and "learning_rate=100.0" in diverged.reason
    assert results.best == lucky and "trial 4/4 completed" in told
    assert "The training loss is" in (tmp_path / "out/report.html").read_text()


@pytest.fixture
def crowded(shapes: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A search of one trial, on its way."""
    space = "max_jobs = 1\nmax_parallel_jobs = 1\n"
    space += "[tuning.ranges.dropout]\ntype = 'continuous'\nlow = 0\nhigh = 0.5\n"
    recipe = write_tiny(tmp_path, space, hyperparameters="epochs = 500")
    command = [sys.executable, "-m", "local", "tune", str(recipe), "--data", str(shapes)]
    command += ["--output", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def wait_for_trainer(search: subprocess.Popen[str]) -> psutil.Process:
    """The trainer's process, as soon as it has printed a metric."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for process in psutil.Process(search.pid).children(recursive=True):
            prefix = process.environ().get("KENNEL_PREFIX") if process.is_running() else None
            if prefix and b"metric " in (Path(prefix) / "log.txt").read_bytes():
                return process
        time.sleep(0.05)
    raise AssertionError("no trainer within 120 s")


def test_trial_that_runs_out_of_memory_says_so(crowded: subprocess.Popen[str]) -> None:
    wait_for_trainer(crowded).kill()  # as the kernel does

    _, told = crowded.communicate(timeout=120)

    assert crowded.returncode == 1
    assert "None of 1 trials has a score." in told and "memory" in told


def test_interrupted_search_ends_in_good_order_and_keeps_the_trial(
    crowded: subprocess.Popen[str], tmp_path: Path
) -> None:
    trainer = wait_for_trainer(crowded)

    crowded.send_signal(signal.SIGINT)
    crowded.communicate(timeout=120)

    assert crowded.returncode == 0 and not trainer.is_running()
    (trial,) = read_results(tmp_path / "out").trials
    assert trial.state == "running"
    assert list((tmp_path / "out/trials/001/checkpoints").glob("step-*.pt"))


def test_bad_trial_of_two_instances_is_stopped_early_with_its_model(shapes: Path, tmp_path: Path) -> None:
    space = (
        "strategy = 'Grid'\nmax_jobs = 2\nmax_parallel_jobs = 1\n"
        "early_stopping = 'Auto'\ninstance_count = 2\n"
        "[tuning.ranges.learning_rate]\ntype = 'categorical'\nvalues = [0.02, 1e-8]\n"
    )
    recipe = write_tiny(tmp_path, space, hyperparameters="epochs = 12")

    tune(recipe, shapes, tmp_path / "out")

    results = read_results(tmp_path / "out")
    good, bad = results.trials
    assert (good.state, bad.state, len(good.curve)) == ("completed", "stopped", 12)
    assert "running averages" in bad.reason and len(bad.curve) < 12
    assert results.machines == "2 processes"
    config = json.loads((tmp_path / "out/trials/001/input/config/resourceconfig.json").read_text())
    assert config["hosts"] == ["127.0.0.1", "127.0.0.2"]
    unpack_artifact(tmp_path / "out/trials/002/model.tar.gz", tmp_path / "model")
    assert (tmp_path / "model/manifest.json").is_file()
