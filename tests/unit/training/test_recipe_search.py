"""The search space of a recipe: what can be searched, and what is left of it once values are fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe_texts import BATCH_SIZE, LEARNING_RATE, TUNING, fault, read_text
from training.recipe import Recipe
from training.recipe_table import RecipeError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(TUNING, "'ranges' is missing in [tuning]", id="no-ranges"),
        pytest.param(f"{TUNING}[tuning.ranges]", "[tuning.ranges] has 0 entries", id="empty-ranges"),
        pytest.param(
            TUNING.replace("minimize", "maximize") + LEARNING_RATE, "would look for the worst", id="direction"
        ),
        pytest.param(TUNING.replace("_loss", "_los") + LEARNING_RATE, "Did you mean", id="objective"),
        pytest.param(TUNING + LEARNING_RATE.replace("0.1", "0.001"), "not below high", id="equal-bounds"),
        pytest.param(
            TUNING + LEARNING_RATE.replace("0.001", "0.0"), "learning_rate=0.0 is outside", id="bound-limit"
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.dropout]\ntype='continuous'\nlow=0\nhigh=0.5\nscale='logarithmic'",
            "needs low above 0",
            id="logarithmic-from-0",
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.epochs]\ntype='continuous'\nlow=1\nhigh=4", "use 'integer'", id="epochs"
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.lr]\ntype='integer'\nlow=1\nhigh=4", "use 'continuous'", id="integer-lr"
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.optimizer]\ntype='integer'\nlow=1\nhigh=4",
            "use 'categorical'",
            id="text",
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.optimizer]\ntype='categorical'\nvalues=['adam']", "'adam'", id="choice"
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.batch_size]\ntype='categorical'\nvalues=[1.5]", "1.5 is not", id="float"
        ),
        pytest.param(f"{TUNING}[tuning.ranges.lr]\nlow=1\nhigh=4", "'type' is missing", id="no-type"),
        pytest.param(
            f"{TUNING}[tuning.ranges.lr]\ntype='continous'\nlow=1\nhigh=4", "'continuous'?", id="wrong-type"
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.lr]\ntype='continuous'\nlow=0.1\nhigh=1\nvalues=[1]",
            "unknown key 'values' in [tuning.ranges.lr]",
            id="key-of-another-type",
        ),
        pytest.param(
            TUNING + LEARNING_RATE + LEARNING_RATE.replace("learning_rate", "lr"), "twice", id="alias-twice"
        ),
        pytest.param(f"{TUNING}strategy='Grid'\n{LEARNING_RATE}", "categorical ranges only", id="grid"),
        pytest.param(f"{TUNING}strategy='Grid'\n{BATCH_SIZE}", "set max_jobs=2 (now 4)", id="grid-jobs"),
        pytest.param(
            f"{TUNING}strategy='Hyperband'\nearly_stopping='Auto'\n{BATCH_SIZE}", "='Off'", id="hyperband"
        ),
        pytest.param(f"{TUNING}max_parallel_jobs=5\n{BATCH_SIZE}", "is more than max_jobs=4", id="parallel"),
        pytest.param(
            f"{TUNING.replace('validation', 'test')}early_stopping='Auto'\n{BATCH_SIZE}",
            "is known at a trial's end only",
            id="stopped-by-what-is-not-known",
        ),
        pytest.param(
            f"{TUNING}warm_start=['{'a' * 33}']\n{BATCH_SIZE}", "a tuning job's name", id="parent-name"
        ),
        pytest.param(
            f"{TUNING}warm_start=['a','b','c','d','e','f']\n{BATCH_SIZE}", "give 0 to 5", id="six-parents"
        ),
        pytest.param(f"{TUNING}max_run_seconds=60\n{BATCH_SIZE}", "outside 120", id="short"),
        pytest.param(
            f"{TUNING}[tuning.ranges.architecture]\ntype='categorical'\nvalues=['{'a' * 257}']",
            "longer than 256",
            id="long-value",
        ),
        pytest.param(
            f"{TUNING}[tuning.ranges.batch_size]\ntype='categorical'\nvalues={list(range(1, 32))}",
            "has 31 entries; give 1 to 30",
            id="categories",
        ),
    ],
)
def test_impossible_search_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in fault(tmp_path, text)


def test_grid_of_every_combination_is_accepted(tmp_path: Path) -> None:
    recipe = read_text(tmp_path, f"{TUNING}strategy='Grid'\nmax_jobs=2\n{BATCH_SIZE}")

    assert recipe.tuning and recipe.tuning.strategy == "Grid"


def test_what_a_search_overrides_is_searched_no_longer(tmp_path: Path) -> None:
    recipe = read_text(tmp_path, f"{TUNING}{LEARNING_RATE}{BATCH_SIZE}")

    fixed = recipe.for_search(["lr=0.02"])

    assert fixed.tuning and set(fixed.tuning.ranges) == {"batch_size"}
    assert fixed.hyperparameters.learning_rate == 0.02
    with pytest.raises(RecipeError, match="--set fixes everything"):
        recipe.for_search(["lr=0.02", "batch_size=32"])
    with pytest.raises(RecipeError, match="nothing to search"):
        Recipe(name="x").for_search([])


def test_grid_shrinks_with_what_is_fixed(tmp_path: Path) -> None:
    rates = "[tuning.ranges.lr]\ntype = 'categorical'\nvalues = [0.1, 0.2, 0.3]\n"
    recipe = read_text(tmp_path, f"{TUNING}strategy='Grid'\nmax_jobs=6\n{BATCH_SIZE}{rates}")

    fixed = recipe.for_search(["lr=0.1"])

    assert fixed.tuning and (fixed.tuning.max_jobs, fixed.tuning.combinations) == (2, 2)
