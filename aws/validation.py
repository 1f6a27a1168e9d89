"""Is a request what the service's own model says it takes? Offline, before anything is sent.

botocore itself checks names, types and lower bounds only; enumerations, patterns and upper bounds are walked
here from the same model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import regex
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

from aws.steps import PlanError, Step


def check_steps(steps: Sequence[Step]) -> None:
    """Raises PlanError with every fault of every step."""
    faults = [f"{step.label}: {fault}" for step in steps for fault in find_faults(step)]
    if faults:
        raise PlanError("The plan is not valid, so nothing was sent.\n  " + "\n  ".join(faults))


def find_faults(step: Step) -> list[str]:
    """What the service would refuse, each as one sentence that names the key and the value."""
    operation = _operation(step.service, step.operation)
    shape = operation.input_shape
    if shape is None:
        return []
    request = _without_files(step.request)
    report = ParamValidator().validate(request, shape)
    faults = [line for line in report.generate_report().splitlines() if line]
    return [*faults, *_walk(request, shape, "")]


def _operation(service: str, operation: str) -> OperationModel:
    return _service(service).operation_model(operation)


@cache
def _service(name: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(name)


def _without_files(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_files(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_files(item) for item in value]
    return b"" if isinstance(value, Path) else value


def _walk(value: Any, shape: Shape, where: str) -> Iterator[str]:
    if isinstance(value, (Mapping, list)):
        if shape.type_name != "structure":
            yield from _check_size(len(value), shape, f"{where} has {len(value)} entries")
        for item, inner, place in _members(value, shape, where):
            yield from _walk(item, inner, place)
    elif isinstance(value, str):
        yield from _check_text(value, shape, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_size(value, shape, f"{where}={value}")


def _members(value: Any, shape: Shape, where: str) -> Iterator[tuple[Any, Shape, str]]:
    """What is inside, each with its shape and place; what does not belong there botocore itself names."""
    kind: Any = shape
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for key in value.keys() & kind.members.keys():
            yield value[key], kind.members[key], f"{where}.{key}".lstrip(".")
    elif shape.type_name == "list" and isinstance(value, list):
        for index, item in enumerate(value):
            yield item, kind.member, f"{where}[{index}]"
    elif shape.type_name == "map" and isinstance(value, Mapping):
        for key, item in value.items():
            yield key, kind.key, f"{where} key {key!r}"
            yield item, kind.value, f"{where}.{key}"


def _check_size(size: float, shape: Shape, shown: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is not None and size < low) or (high is not None and size > high):
        bounds = ("any" if bound is None else f"{bound}" for bound in (low, high))
        yield f"{shown}; allowed are {' to '.join(bounds)}."


def _check_text(value: str, shape: Shape, where: str) -> Iterator[str]:
    choices = getattr(shape, "enum", None)
    if choices and value not in choices:
        nearest = difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(nearest)}?" if nearest else f"One of {', '.join(choices[:8])}."
        yield f"{where}={value!r} is not offered by the service. {hint}"
    yield from _check_size(len(value), shape, f"{where}={value[:40]!r} has {len(value)} characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not _compile(pattern).fullmatch(value):
        yield f"{where}={value[:80]!r} does not have the form {pattern}."


@cache
def _compile(pattern: str) -> regex.Pattern[str]:
    """Patterns are Java's: \\p{L} and the like, which `re` does not know, and surrogate pairs."""
    return regex.compile(pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"))
