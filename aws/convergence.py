"""What a rule of convergence consists of, and how found and wanted are compared. Pure.

The rules themselves, one for each operation that creates or sets something: aws/convergence_rules.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aws.errors import AwsError
from aws.steps import Step

Answer = Mapping[str, Any]
Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A request that shows what a step is about."""

    operation: str
    request: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`found`: None where the answer shows that it is not there; otherwise the values to compare."""

    look: Callable[[Values], Look]
    found: Callable[[Answer, Values], Values | None] = lambda answer, request: {}
    change: Callable[[Step, Answer], list[Step]] = lambda step, answer: [step]
    answer: Callable[[Answer, Values], Values] = lambda answer, request: dict(answer)


def is_absent(error: AwsError) -> bool:
    """The service says that there is no such thing. Each has its own way to."""
    if error.code in ABSENT_CODES or error.status == 404:
        return True
    text = error.message.lower()
    return error.code == "ValidationException" and any(part in text for part in ABSENT_TEXTS)


ABSENT_CODES = {
    "404",
    "NoSuchBucket",
    "NoSuchBucketPolicy",
    "NoSuchEntity",
    "NoSuchKey",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "NotFound",
    "ServerSideEncryptionConfigurationNotFoundError",
    "LifecyclePolicyNotFoundException",
    "ProvisionedConcurrencyConfigNotFoundException",
    "RepositoryNotFoundException",
    "ResourceNotFound",
    "ResourceNotFoundException",
    "RecordNotFound",
}
ABSENT_TEXTS = ("could not find", "does not exist", "not found", "cannot find")


def differs(found: Values, request: Mapping[str, Any]) -> list[str]:
    """Keys whose value is another than asked for."""
    return [key for key, value in found.items() if _plain(value) != _plain(request.get(key))]


def _plain(value: Any) -> Any:
    """For comparison: numbers as numbers, documents parsed, lists of tags without their order."""
    if isinstance(value, str) and value.startswith("{"):
        return _plain(json.loads(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=str))
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
