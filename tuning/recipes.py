"""A recipe as it was written, comments and all, with other values: best.toml, and the recipe of a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tomlkit

from training.hyperparameters import NAMES, HyperparameterError, canonical_name, parse_hyperparameters
from training.recipe import Recipe, read_recipe
from training.recipe_fields import Scalar


def write_recipe(
    source: Path,
    destination: Path,
    *,
    hyperparameters: Mapping[str, Scalar],
    instance_count: int | None = None,
    heading: str = "",
) -> Recipe:
    """Write the recipe `source` with these hyperparameters set, and return it as it is read back."""
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    table = document.setdefault("hyperparameters", tomlkit.table())
    written = {_canonical(key): key for key in table}
    for name, value in hyperparameters.items():
        table[written.get(name, name)] = value
    if instance_count is not None:
        document.setdefault("training", tomlkit.table())["instance_count"] = instance_count
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    partial = destination.with_suffix(".partial")
    partial.write_text(f"{comment}{tomlkit.dumps(document)}", encoding="utf-8")
    partial.replace(destination)
    return read_recipe(destination)


def find_changes(
    source: Path, fixed: Mapping[str, str], parameters: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """What the recipe `source` must set to become the trial with these values, fixed ones and searched."""
    strings = {name: json.dumps(value) for name, value in parameters.items()}
    wanted = parse_hyperparameters({**fixed, **strings})
    present = read_recipe(source).hyperparameters
    changed = (name for name in NAMES if getattr(wanted, name) != getattr(present, name))
    return {name: getattr(wanted, name) for name in {**parameters, **dict.fromkeys(changed)}}


def _canonical(key: str) -> str:
    try:
        return canonical_name(key)
    except HyperparameterError:
        return key
