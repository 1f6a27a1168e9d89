"""Recipes written out, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipe import Recipe, read_recipe
from training.recipe_table import RecipeError

TUNING = '[tuning]\nobjective = "validation_loss"\ndirection = "minimize"\n'
LEARNING_RATE = '[tuning.ranges.learning_rate]\ntype = "continuous"\nlow = 0.001\nhigh = 0.1\n'
BATCH_SIZE = '[tuning.ranges.batch_size]\ntype = "categorical"\nvalues = [32, 64]\n'


def read_text(folder: Path, text: str) -> Recipe:
    path = folder / "x.toml"
    path.write_text(f'name = "x"\n{text}', encoding="utf-8")
    return read_recipe(path)


def fault(folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_text(folder, text)
    return str(caught.value).removeprefix(f"{folder / 'x.toml'}: ")
