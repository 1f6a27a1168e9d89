"""Which rules a job was asked to run: from a recipe, or from DebugRuleConfigurations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ACTIONS = ("report", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """A rule as it was asked for; parameters are the strings of a recipe or of RuleParameters."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    action: str = "report"


def read_rule_configuration(configuration: Mapping[str, Any]) -> RuleSettings:
    """An entry of DebugRuleConfigurations or ProfilerRuleConfigurations; StopTraining means `stop`."""
    parameters = {str(name): str(value) for name, value in configuration.get("RuleParameters", {}).items()}
    name = parameters.pop("rule_to_invoke", str(configuration.get("RuleConfigurationName", "")))
    stops = "stoptraining" in parameters.pop("action_json", "").lower() or (
        parameters.get("stop_training_on_fire", "").lower() == "true"
    )
    return RuleSettings(name=name, parameters=parameters, action="stop" if stops else "report")


def read_recipe_rules(
    rules: Iterable[str], parameters: Mapping[str, Mapping[str, object]]
) -> list[RuleSettings]:
    """[debugger] rules and profiler_rules with [debugger.parameters.X]; `action` there is report or stop."""
    settings = []
    for name in rules:
        texts = {key: _to_text(value) for key, value in parameters.get(name, {}).items()}
        action = texts.pop("action", "report")
        if texts.get("stop_training_on_fire", "").lower() == "true":
            action = "stop"
        settings.append(RuleSettings(name=name, parameters=texts, action=action))
    return settings


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
