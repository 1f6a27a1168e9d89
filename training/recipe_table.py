"""A TOML table as a dataclass: the fields and their limits are the schema, and every fault is named.

An unknown key, a wrong type and a value out of range are refused, with the nearest known name.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.recipe_fields import KIND_NAMES, is_of_kind


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the table, the key and what is allowed."""


def build_table(kind: type[Any], table: Mapping[str, object], where: str) -> Any:
    """A table as the dataclass `kind`; `where` is its dotted name, empty for the whole file."""
    hints = get_type_hints(kind)
    fields = {field.metadata.get("key", field.name): field for field in dataclasses.fields(kind)}
    _refuse_unknown(table, fields, where)
    values = {
        fields[key].name: convert(value, hints[fields[key].name], key, where, fields[key].metadata)
        for key, value in table.items()
    }
    for key, field in fields.items():
        if key not in table and _is_required(field):
            raise RecipeError(f"{key!r} is missing {_inside(where)}.")
    with naming(where):
        return kind(**values)


def convert(value: object, hint: Any, key: str, where: str, limits: Mapping[str, Any]) -> Any:
    """One value by the type the schema gives it."""
    kinds = [kind for kind in _union_members(hint) if kind is not type(None)]
    inner = _dotted(where, key)
    if "read" in limits:
        return limits["read"](value, inner)
    if dataclasses.is_dataclass(kinds[0]):
        table = expect_table(value, inner)
        return build_table(_choose_kind(kinds, table, inner), table, inner)
    if get_origin(kinds[0]) is tuple:
        return _convert_list(value, get_args(kinds[0])[0], key, where, limits)
    if get_origin(kinds[0]) is Mapping:
        return _convert_mapping(value, get_args(kinds[0])[1], inner, limits)
    return _convert_scalar(value, kinds, key, where, limits)


def _convert_list(value: object, kind: Any, key: str, where: str, limits: Mapping[str, Any]) -> Any:
    if not isinstance(value, list):
        raise RecipeError(f"{_shown(key, value, where)} is not a list.")
    items = [convert(item, kind, key, where, limits) for item in value]
    repeated = [item for index, item in enumerate(items) if item in items[:index]]
    if repeated:
        raise RecipeError(f"{key} {_inside(where)} lists {repeated[0]!r} twice; keep one.")
    _check_count(len(items), _dotted(where, key), limits)
    return tuple(items)


def _convert_mapping(value: object, kind: Any, where: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, item in expect_table(value, where).items():
        with naming(where):
            name = limits.get("parse_key", str)(key)
        if name in items:
            raise RecipeError(f"[{where}] gives {name!r} twice (once as {key!r}); keep one.")
        items[name] = convert(item, kind, key, where, {k: v for k, v in limits.items() if k == "pattern"})
    _check_count(len(items), where, limits)
    return items


def _convert_scalar(
    value: object, kinds: list[Any], key: str, where: str, limits: Mapping[str, Any]
) -> object:
    shown = _shown(key, value, where)
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else limits.get("choices")
    if choices:
        if value in choices:
            return value
        raise RecipeError(f"{shown} is not one of {', '.join(choices)}.{_did_you_mean(str(value), choices)}")
    fitting = [kind for kind in kinds if is_of_kind(value, kind)]
    if not fitting:
        raise RecipeError(f"{shown} is not {' or '.join(KIND_NAMES[kind] for kind in kinds)}.")
    _check_limits(value, shown, limits)
    return float(value) if fitting == [float] else value  # type: ignore[arg-type]


def _check_limits(value: Any, shown: str, limits: Mapping[str, Any]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{shown} is not a finite number.")
    if "low" in limits and not limits["low"] <= value <= limits["high"]:
        raise RecipeError(f"{shown} is outside {limits['low']} to {limits['high']}.")
    if "pattern" in limits:
        regex, meaning = limits["pattern"]
        if not re.fullmatch(regex, value):
            raise RecipeError(f"{shown} is not {meaning}.")
    if "step" in limits and value % limits["step"]:
        raise RecipeError(f"{shown} is not a multiple of {limits['step']}.")


def _check_count(count: int, where: str, limits: Mapping[str, Any]) -> None:
    low, high = limits.get("min_items", 0), limits.get("max_items", math.inf)
    if not low <= count <= high:
        raise RecipeError(f"[{where}] has {count} entries; give {low} to {high}.")


def _choose_kind(kinds: list[Any], table: Mapping[str, object], where: str) -> Any:
    """The one dataclass, or the one whose `type` the table names."""
    if len(kinds) == 1:
        return kinds[0]
    by_type = {get_args(get_type_hints(kind)["type"])[0]: kind for kind in kinds}
    if "type" not in table:
        raise RecipeError(f"'type' is missing in [{where}]: one of {', '.join(by_type)}.")
    return by_type[_convert_scalar(table["type"], [str], "type", where, {"choices": tuple(by_type)})]


def _refuse_unknown(table: Mapping[str, object], known: Mapping[str, object], where: str) -> None:
    for key, value in table.items():
        if key in known:
            continue
        if isinstance(value, dict):
            tables = [_dotted(where, name) for name in known]
            raise RecipeError(
                f"unknown table [{_dotted(where, key)}]. {nearest(_dotted(where, key), tables)}"
            )
        raise RecipeError(f"unknown key {key!r} {_inside(where)}. {nearest(key, known)}")


def expect_table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}={value!r} is not a table; write [{where}] and its keys below it.")
    return value


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Puts the table's name before what a dataclass or a hyperparameter says about its values."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{_inside(where)}: {error}") from None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _union_members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _inside(where: str) -> str:
    return f"in [{where}]" if where else "at the top of the file"


def _shown(key: str, value: object, where: str) -> str:
    return f"{key}={value!r} {_inside(where)}"


def nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    return _did_you_mean(name, names).strip() or f"Known: {', '.join(sorted(names)) or 'none'}."


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
