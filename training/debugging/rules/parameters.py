"""Rules from strings: a recipe's tables, and the RuleParameters of DebugRuleConfigurations."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from training.debugging.rules.rule import ACTIONS, Rule, RuleError, RuleSettings

# The service fills these in or uses them itself; they say nothing about a rule's condition.
SERVICE_PARAMETERS = frozenset(
    (
        "base_trial",
        "rule_to_invoke",
        "scan_interval_us",
        "action_json",
        "other_trials",
        "start_step",
        "end_step",
    )
)


def build_rule(settings: RuleSettings, known: Mapping[str, type[Rule]]) -> Rule:
    """A rule with its parameters typed. Raises RuleError naming the known rules or parameters."""
    if settings.name not in known:
        raise RuleError(f"Unknown rule {settings.name!r}. {_nearest(settings.name, known)}")
    if settings.action not in ACTIONS:
        raise RuleError(f"{settings.name}: action={settings.action!r} is not one of {', '.join(ACTIONS)}.")
    kind = known[settings.name]
    hints = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in settings.parameters.items():
        if name in hints:
            values[name] = _parse(settings.name, name, text, hints[name])
        elif name not in SERVICE_PARAMETERS:
            raise RuleError(f"{settings.name} has no parameter {name!r}. {_nearest(name, hints)}")
    return kind(**values)


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


def _parse(rule: str, name: str, text: str, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    if type(None) in kinds and text.strip().lower() in ("", "none"):
        return None
    kind = next(kind for kind in kinds if kind is not type(None))
    try:
        return _PARSERS[kind](text.strip())
    except ValueError:
        raise RuleError(f"{rule}: {name}={text!r} is not {_KIND_NAMES[kind]}.") from None


def _parse_bool(text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ValueError(text)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none; it takes no parameters'}."


_PARSERS: dict[type, Any] = {bool: _parse_bool, int: int, float: float, str: str}
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
