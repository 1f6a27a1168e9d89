"""`python -m local tune`: real trials; killed, stopped early, failing, on two instances."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from artifact.bundle import unpack_artifact
from chaos.kill_tuning import read_ended, torment, tuning_command
from local.platform import REPOSITORY
from local.tuning_trial import read_outcome
from tests.conftest import run_local
from training.recipe import read_recipe
from tuning.results import Results, read_results

RECIPE = """
name = "tiny"
[hyperparameters]
architecture = "cnn"
image_size = 32
resize = 36
learning_rate = 0.02
precision = "fp32"
doctor = "off"
{hyperparameters}
[tuning]
objective = "{objective}"
direction = "{direction}"
{tuning}
"""


def write_tiny(
    folder: Path, tuning: str, *, hyperparameters: str = "", objective: str = "best_validation_top1_accuracy"
) -> Path:
    """A recipe of a small, quick network."""
    path = folder / "tiny.toml"
    direction = "minimize" if objective.endswith("_loss") else "maximize"
    path.write_text(
        RECIPE.format(
            tuning=tuning, hyperparameters=hyperparameters, objective=objective, direction=direction
        )
    )
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
    """Two trials, two kills; `python -m chaos.kill_tuning --kills 10` goes further."""
    output = tmp_path_factory.mktemp("tormented")
    seed = int.from_bytes(os.urandom(4), "big")
    verdict = torment(tuning_command(shapes, output, trials=2), output, kills=2, seed=seed)
    return Tormented(
        output=output,
        faults=[*verdict.faults, *([f"seed={seed}"] if verdict.faults else [])],
        trials=verdict.trials,
        results=read_results(output),
    )


def test_killed_search_repeats_no_trial_and_loses_none(tormented: Tormented) -> None:
    assert tormented.faults == []
    assert tormented.trials == 2
    assert [trial.state for trial in tormented.results.trials] == ["completed"] * 2
    values = {tuple(trial.parameters.items()) for trial in tormented.results.trials}
    assert len(values) == 2


def test_every_trial_left_its_model_and_its_curve(tormented: Tormented) -> None:
    for trial in tormented.results.trials:
        assert (tormented.output / trial.job / "model.tar.gz").is_file()
        assert len(trial.curve) == 2 and trial.seconds > 0
        assert trial.objective == trial.curve[-1]["best_validation_top1_accuracy"]


def test_trials_do_not_see_the_test_split(tormented: Tormented) -> None:
    assert not any("test_top1_accuracy" in row for trial in tormented.results.trials for row in trial.curve)


def test_search_that_is_over_only_tells_what_it_found(tormented: Tormented, shapes: Path) -> None:
    before = read_ended(tormented.output)
    command = tuning_command(shapes, tormented.output, trials=2)

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["trials"] == 2
    assert read_ended(tormented.output) == before


def test_best_recipe_is_the_best_trial_s_but_for_the_precisions(tormented: Tormented) -> None:
    best = tormented.results.best
    assert best

    recipe = read_recipe(tormented.output / "best.toml")

    trained = read_recipe(tormented.output / best.job / "recipe.toml").hyperparameters
    assert {name: getattr(recipe.hyperparameters, name) for name in best.parameters} == best.parameters
    assert recipe.hyperparameters == dataclasses.replace(trained, quantize="auto")
    assert recipe.tuning and recipe.endpoint  # all the rest is there as well


def test_unlucky_trials_fail_with_their_reason_and_the_search_goes_on(shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    broken = next((data / "train/circle").iterdir())
    broken.write_bytes(broken.read_bytes()[:100])
    grid = (
        "strategy = 'Grid'\nmax_jobs = 4\n"
        "[tuning.ranges.max_unreadable]\ntype = 'categorical'\nvalues = [1.0, 0.0]\n"
        "[tuning.ranges.learning_rate]\ntype = 'categorical'\nvalues = [100.0, 0.02]\n"
    )
    # Weights that a decay of 1 x 100 makes 99 times larger at each step are infinite after twenty.
    explosive = "epochs = 2\nbatch_size = 4\nwarmup_epochs = 0.0\nweight_decay = 1.0"
    recipe = write_tiny(tmp_path, grid, hyperparameters=explosive)

    told = tune(recipe, data, tmp_path / "out", "--max-jobs", "3")

    results = read_results(tmp_path / "out")
    diverged, lucky, corrupt = results.trials
    assert [trial.state for trial in results.trials] == ["failed", "completed", "failed"]
    assert broken.name in corrupt.reason
    assert "The training loss is" in diverged.reason and "learning_rate=100.0" in diverged.reason
    assert results.best == lucky and "trial 2/3 completed" in told
    assert "The training loss is" in (tmp_path / "out/report.html").read_text()


def find_trainers(output: Path) -> list[psutil.Process]:
    """The trainers' processes, by trial, once all of two have printed a metric."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        time.sleep(0.05)
        logs = [output / "trials" / name / "log.txt" for name in ("001", "002")]
        if all(log.is_file() and b"metric " in log.read_bytes() for log in logs):
            return [find_trainer(log.parent) for log in logs]
    raise AssertionError("no two trainers within 240 s")


def find_trainer(folder: Path) -> psutil.Process:
    """The first process that works in `folder`."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("KENNEL_PREFIX") == str(folder.resolve()):
            return process
    raise AssertionError(f"nobody trains in {folder}")


def test_killed_trial_says_why_and_an_interrupted_one_is_kept(shapes: Path, tmp_path: Path) -> None:
    space = "max_jobs = 2\n[tuning.ranges.dropout]\ntype = 'continuous'\nlow = 0\nhigh = 0.5\n"
    recipe = write_tiny(tmp_path, space, hyperparameters="epochs = 2000\nbatch_size = 16")
    command = [sys.executable, "-m", "local", "tune", str(recipe), "--data", str(shapes)]
    command += ["--output", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as search:
        first, second = find_trainers(tmp_path / "out")
        first.kill()  # as the kernel does where memory is short
        assert search.stderr
        assert any("failed" in line for line in search.stderr)  # reads until then
        search.send_signal(signal.SIGINT)
        search.communicate(timeout=240)

    killed, kept = read_results(tmp_path / "out").trials
    assert search.returncode == 0 and not second.is_running()
    assert (killed.state, kept.state) == ("failed", "running")
    assert "memory" in killed.reason
    assert list((tmp_path / "out/trials/002/checkpoints").glob("step-*.pt"))


def test_trial_that_is_stopped_before_its_first_step_is_to_be_resumed(shapes: Path, tmp_path: Path) -> None:
    recipe = write_tiny(tmp_path, "[tuning.ranges.dropout]\ntype = 'continuous'\nlow = 0\nhigh = 0.5\n")
    command = [sys.executable, "-m", "local.tuning_trial", str(recipe), "--data", str(shapes)]
    (tmp_path / "out").mkdir()

    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,  # at its end from the start, as when the search is killed at once
        capture_output=True,
        check=False,
        timeout=240,
    )

    outcome = read_outcome(tmp_path / "out")
    assert outcome and outcome["stopped"], done.stderr


def test_bad_trial_of_two_instances_is_stopped_early_with_its_model(shapes: Path, tmp_path: Path) -> None:
    space = (
        "strategy = 'Grid'\nmax_jobs = 2\nmax_parallel_jobs = 1\n"
        "early_stopping = 'Auto'\ninstance_count = 2\n"
        "[tuning.ranges.learning_rate]\ntype = 'categorical'\nvalues = [0.02, 50.0]\n"
    )
    epochs = "epochs = 16\nbatch_size = 16"
    recipe = write_tiny(tmp_path, space, hyperparameters=epochs, objective="train_loss")

    tune(recipe, shapes, tmp_path / "out")

    results = read_results(tmp_path / "out")
    good, bad = results.trials
    assert (good.state, bad.state, len(good.curve)) == ("completed", "stopped", 16)
    assert "running averages" in bad.reason and len(bad.curve) < 16
    assert results.machines == "2 processes"
    config = json.loads((tmp_path / "out/trials/001/input/config/resourceconfig.json").read_text())
    assert config["hosts"] == ["127.0.0.1", "127.0.0.2"]
    unpack_artifact(tmp_path / "out/trials/002/model.tar.gz", tmp_path / "model")
    assert (tmp_path / "model/manifest.json").is_file()


@pytest.mark.docker
def test_search_in_containers_is_the_same_and_leaves_none(
    shapes: Path, tmp_path: Path, training_image: str
) -> None:
    space = "max_jobs = 2\n[tuning.ranges.dropout]\ntype = 'continuous'\nlow = 0\nhigh = 0.5\n"
    recipe = write_tiny(tmp_path, space, hyperparameters="epochs = 2\nbatch_size = 16")

    tune(recipe, shapes, tmp_path / "out", "--docker", "--image", training_image)

    results = read_results(tmp_path / "out")
    assert [(trial.state, len(trial.curve)) for trial in results.trials] == [("completed", 2)] * 2
    assert results.place == "containers on this machine"
    listed = subprocess.run(
        ["docker", "ps", "--all", "--format", "{{.Mounts}} {{.Names}}", "--no-trunc"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(tmp_path) not in listed
