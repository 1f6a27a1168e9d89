"""A rule's parameters from the strings that a recipe and RuleParameters hold."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

# The service fills these in or uses them itself; they say nothing about a rule's condition.
SERVICE_PARAMETERS = frozenset(
    ("base_trial", "other_trials", "rule_to_invoke", "scan_interval_us", "action_json")
)


class RuleError(ValueError):
    """A rule or a parameter that does not exist or cannot be read; the message names the known ones."""


def parse_parameters(rule: type[Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """Typed as the fields of the rule's dataclass. Raises RuleError naming the known parameters."""
    hints = get_type_hints(rule)
    names = [field.name for field in dataclasses.fields(rule)]
    values: dict[str, Any] = {}
    for name, text in parameters.items():
        if name in names:
            values[name] = _parse(rule.__name__, name, text, hints[name])
        elif name not in SERVICE_PARAMETERS:
            raise RuleError(f"{rule.__name__} has no parameter {name!r}. {name_nearest(name, names)}")
    return values


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


def name_nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: what was probably meant, and what there is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none; it takes no parameters'}."


_PARSERS: dict[type, Any] = {bool: _parse_bool, int: int, float: float, str: str}
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
