"""A plan is a list of steps: which request goes to which service, and which state to wait for after it.

Planners make them without a look at AWS; `aws/execution.py` sends them; `--dry-run` prints them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Request = Mapping[str, Any]


class PlanError(ValueError):
    """What was asked for cannot work on AWS; the message says what, which value, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Ask until a state is reached. Raises in the executor where it is one of `failed`."""

    operation: str
    request: Request
    state: str  # dotted path into the answer
    done: tuple[str, ...]
    failed: tuple[str, ...]
    reason: str = "FailureReason"
    log_group: str = ""  # its streams that begin with the job's name are shown
    timeout_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request. `taken` replaces keys by what an earlier step answered: key -> (operation, key)."""

    service: str  # as boto3 calls it
    operation: str  # as the API calls it, such as CreateModel
    request: Request
    wait_for: Wait | None = None
    taken: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The operation and the name of what it is about, for people."""
        names = (self.request[key] for key in _NAME_KEYS if isinstance(self.request.get(key), str))
        return f"{self.operation} {next(names, '')}".strip()

    def to_json(self) -> dict[str, Any]:
        """As `--dry-run` prints it; bytes and files by their size only."""
        shown: dict[str, Any] = {
            "service": self.service,
            "operation": self.operation,
            "request": _to_json(self.request),
        }
        if self.wait_for:
            shown["wait_for"] = {"operation": self.wait_for.operation, "state": list(self.wait_for.done)}
        if self.taken:
            shown["taken"] = {key: ".".join(source) for key, source in self.taken.items()}
        return shown


# The most telling key first: a scaling policy has a ResourceId too.
_NAME_KEYS = (
    "RoleName PolicyName TrainingJobName HyperParameterTuningJobName TransformJobName ProcessingJobName "
    "EndpointName EndpointConfigName ModelName ModelPackageGroupName AlarmName Name FunctionName "
    "InstanceProfileName repositoryName logGroupName ResourceId Key Bucket ClientToken"
).split()


def content_name(prefix: str, content: object) -> str:
    """PREFIX-12345678, the digits from the content: the same content is the same resource."""
    text = json.dumps(_to_json(content), sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def format_plan(steps: Sequence[Step]) -> str:
    """One line for each step, for people."""
    return "\n".join(f"{number:>3}. {step.service:<24} {step.label}" for number, step in enumerate(steps, 1))


def _to_json(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()[:12]}>"
    if isinstance(value, Path):
        return f"<file {value.name}>"
    return value
