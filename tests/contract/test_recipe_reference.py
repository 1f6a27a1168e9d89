"""docs/reference.md lists every key of a recipe, as its own definition describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from local.platform import REPOSITORY
from training.recipe import Debugger, Training
from training.recipe_aws import (
    Account,
    AsyncInference,
    Ec2,
    Endpoint,
    LambdaFunction,
    Scaling,
    Serverless,
    Transform,
)
from training.recipe_tuning import Tuning

REFERENCE = (REPOSITORY / "docs/reference.md").read_text()
TABLES = {
    "tuning": Tuning,
    "training": Training,
    "debugger": Debugger,
    "endpoint": Endpoint,
    "endpoint.scaling": Scaling,
    "endpoint.lambda": LambdaFunction,
    "endpoint.serverless": Serverless,
    "endpoint.async": AsyncInference,
    "transform": Transform,
    "ec2": Ec2,
    "aws": Account,
}


def rows() -> Iterator[str]:
    """A table row for each key that says what it is for."""
    for table, kind in TABLES.items():
        for key in dataclasses.fields(kind):
            if "help" in key.metadata:
                yield f"| `[{table}] {key.name}` | {_default(key)} | {key.metadata['help']} |"


def _default(key: dataclasses.Field[Any]) -> str:
    if key.default is dataclasses.MISSING:
        return "(required)"
    empty = key.default in (None, "", ())
    return "" if empty else f"`{str(key.default).lower() if isinstance(key.default, bool) else key.default}`"


@pytest.mark.parametrize("row", list(rows()))
def test_reference_has_the_key(row: str) -> None:
    assert row in REFERENCE
