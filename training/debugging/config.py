"""Which rules a job asked for: its hyperparameter `debug_rules`, in one of these forms.

all, none                             every rule with its defaults; no rule
VanishingGradient,Overfit             these, with their defaults
Overfit:patience=5;action=stop        `action` stops the job when the rule fires
{"Overfit": {"patience": 5}}          as [debugger.parameters] of a recipe
[{"RuleConfigurationName": "Overfit", "RuleParameters": {"rule_to_invoke": "Overfit", "patience": "5"}}]
                                      as DebugRuleConfigurations of CreateTrainingJob
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from training.debugging.rules import (
    RULES,
    RuleError,
    RuleSettings,
    check_rules,
    read_recipe_rules,
    read_rule_configuration,
)
from training.job import JobError


def parse_debug_rules(text: str) -> list[RuleSettings]:
    """The rules of a job, checked. Raises JobError naming what is wrong and the known rules."""
    try:
        settings = _parse(text.strip())
        check_rules(settings)
    except (RuleError, ValueError) as error:
        raise JobError(f"debug_rules: {error}") from error
    return settings


def _parse(text: str) -> list[RuleSettings]:
    if text in ("all", "none"):
        return read_recipe_rules(RULES if text == "all" else [], {})
    if text.startswith(("{", "[")):
        return _read_json(text)
    tables = dict(_parse_rule(rule) for rule in text.split(","))
    return read_recipe_rules(tables, tables)


def _read_json(text: str) -> list[RuleSettings]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise RuleError(f"{text[:80]!r} is not JSON ({error}).") from error
    if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        return [read_rule_configuration(entry) for entry in content]
    if isinstance(content, dict) and all(isinstance(table, dict) for table in content.values()):
        return read_recipe_rules(content, content)
    raise RuleError(
        f"{text[:80]!r} is neither an object of rules and their parameters nor a list of rule configurations."
    )


def _parse_rule(text: str) -> tuple[str, Mapping[str, str]]:
    """`Overfit:patience=5;ratio_threshold=0.2`."""
    name, _, settings = text.strip().partition(":")
    pairs = [pair.partition("=") for pair in settings.split(";") if pair.strip()]
    for key, equals, _ in pairs:
        if not equals:
            raise RuleError(f"{name}: {key!r} is not of the form parameter=value.")
    return name, {key.strip(): value.strip() for key, _, value in pairs}
