"""best.toml: the recipe as it was written, with the best trial's values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from local.platform import REPOSITORY
from tests.unit.tuning.searches import make_results
from training.hyperparameters import parse_hyperparameters
from training.recipe import read_recipe
from tuning.recipes import find_changes, write_recipe
from tuning.summary import write_summary

RECIPES = sorted((REPOSITORY / "recipes").glob("*.toml"))


@pytest.mark.parametrize("source", RECIPES, ids=lambda path: path.stem)
def test_recipe_keeps_all_but_what_is_set(source: Path, tmp_path: Path) -> None:
    before = read_recipe(source)

    after = write_recipe(
        source, tmp_path / "best.toml", hyperparameters={"epochs": 7, "learning_rate": 0.0123}
    )

    expected = dataclasses.replace(before.hyperparameters, epochs=7, learning_rate=0.0123)
    assert after == dataclasses.replace(before, hyperparameters=expected)
    written = (tmp_path / "best.toml").read_text()
    assert [line for line in source.read_text().splitlines() if line.startswith("#")] == [
        line for line in written.splitlines() if line.startswith("#")
    ]


def test_alias_and_missing_tables_are_no_obstacle(tmp_path: Path) -> None:
    source = tmp_path / "x.toml"
    source.write_text("name = 'x'\n[hyperparameters]\nlr = 0.5\n")
    bare = tmp_path / "y.toml"
    bare.write_text("name = 'y'\n")

    changed = write_recipe(source, tmp_path / "a.toml", hyperparameters={"learning_rate": 0.1})
    other = write_recipe(bare, tmp_path / "b.toml", hyperparameters={"pretrained": True}, instance_count=2)

    assert changed.hyperparameters.learning_rate == 0.1
    assert other.hyperparameters.pretrained is True and other.training.instance_count == 2


def test_what_the_command_line_fixed_is_in_the_best_recipe_too(tmp_path: Path) -> None:
    source = tmp_path / "x.toml"
    source.write_text("name = 'x'\n[hyperparameters]\nimage_size = 64\n")
    fixed = read_recipe(source).with_overrides(["image_size=32"]).hyperparameters.to_strings()

    changes = find_changes(source, fixed, {"epochs": 3, "dropout": 0.5})

    assert changes == {"epochs": 3, "dropout": 0.5, "image_size": 32}


def test_summary_leaves_a_recipe_a_page_and_the_results(tmp_path: Path) -> None:
    source = tmp_path / "x.toml"
    source.write_text("name = 'x'\n# Mine.\n[hyperparameters]\nseed = 3\narchitecture = 'cnn'\n")

    summary = write_summary(make_results(), source=source, output=tmp_path / "out")

    recipe = read_recipe(Path(summary["best"]))
    assert recipe.hyperparameters == parse_hyperparameters(
        {"learning_rate": "0.016", "batch_size": "64", "epochs": "3", "seed": "3", "architecture": "cnn"}
    )
    assert summary["validation_top1_accuracy"] == 0.93
    assert (tmp_path / "out/best.toml").read_text().startswith("# Trial 5, the best of 7:")
    assert (tmp_path / "out/tuning.json").is_file() and (tmp_path / "out/report.html").is_file()
