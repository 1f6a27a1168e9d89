"""What trials are given: their cores, their channels, their recipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifact.cores import available_cores
from local.tuning_plan import (
    Plan,
    docker_options,
    link_channels,
    share_cores,
    trial_command,
    write_trial_recipe,
)
from training.recipe import read_recipe

RECIPE = """
name = "tiny"
[hyperparameters]
epochs = 2
[tuning]
objective = "validation_loss"
direction = "minimize"
instance_count = 2
[tuning.ranges.epochs]
type = "integer"
low = 1
high = 9
[tuning.ranges.batch_size]
type = "categorical"
values = [8, 16]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of a recipe in which one range is fixed."""
    source = tmp_path / "tiny.toml"
    source.write_text(RECIPE)
    for name in ("train", "validation", "test"):
        (tmp_path / "images" / name).mkdir(parents=True)
    return Plan(
        source=source,
        recipe=read_recipe(source).for_search(["image_size=64"]),
        data=tmp_path / "images",
        output=tmp_path / "out",
        max_jobs=4,
        max_parallel_jobs=2,
    )


def test_trials_side_by_side_share_the_cores_and_a_single_one_has_all() -> None:
    mine = os.sched_getaffinity(0)

    shares = [share_cores(slot, 2) for slot in range(2)]

    assert share_cores(0, 1) == ()
    assert all(len(share) == max(1, available_cores() // 2) and set(share) <= mine for share in shares)
    assert available_cores() == 1 or not set(shares[0]) & set(shares[1])
    assert {len(share_cores(slot, 64)) for slot in range(64)} == {max(1, available_cores() // 64)}


def test_longest_trial_is_known_for_hyperband(plan: Plan) -> None:
    assert plan.max_epochs == 9


def test_trials_get_all_splits_but_test_under_the_contract_s_names(plan: Plan) -> None:
    folder = link_channels(plan)

    assert {path.name: path.resolve().name for path in folder.iterdir()} == {
        "train": "train",
        "valid": "validation",
    }


def test_recipe_of_a_trial_is_the_whole_of_it(plan: Plan, tmp_path: Path) -> None:
    recipe = write_trial_recipe(plan, {"epochs": 3, "batch_size": 16}, tmp_path / "trial.toml")

    settings = recipe.hyperparameters
    assert (settings.epochs, settings.batch_size, settings.image_size) == (3, 16, 64)
    assert settings.quantize == "off"
    assert recipe.training.instance_count == 2


def test_container_of_a_trial_has_its_cores_and_the_shared_cache(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KENNEL_CACHE", str(tmp_path / "cache"))

    options = docker_options((1, 3))

    assert f"--volume={tmp_path / 'cache'}:/kennel-cache" in options and "--cpuset-cpus=1,3" in options
    assert (tmp_path / "cache").is_dir()
    command = trial_command(plan, recipe=plan.source, data=plan.data, output=plan.output, cores=(1,))
    assert "--cores=1" in command and "--image" not in command
