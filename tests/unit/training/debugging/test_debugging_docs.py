"""docs/debugging.md lists every rule with its parameters, defaults and condition, as the code has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from training.debugging.rules import RULES, Rule

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/debugging.md"


def rule_row(rule: type[Rule]) -> str:
    """A table row, as it must stand in the document."""
    fields = [f"`{f.name}={f.default}`" for f in dataclasses.fields(rule) if f.name != "rules"]
    condition = " ".join((rule.__doc__ or "").split())
    cells = (rule.__name__, ", ".join(fields) or "-", condition)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


@pytest.mark.parametrize("name", RULES)
def test_rule_is_documented_as_it_is(name: str) -> None:
    assert rule_row(RULES[name]) in DOCUMENT.read_text(encoding="utf-8")
