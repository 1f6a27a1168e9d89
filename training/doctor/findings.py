"""What a judgement says: how much it weighs, how many files it is about, why it matters, what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from training.doctor.files import FileFacts

Severity = Literal["note", "warn", "stop"]
Verdict = Literal["ok", "warn", "stop"]
RANK: dict[str, int] = {"note": 0, "ok": 0, "warn": 1, "stop": 2}
SPLITS = ("train", "valid", "test")
HELD_OUT = ("valid", "test")
MOST_EXAMPLES = 8  # per finding; the rest is in doctor.json
FIX_COMMAND = "`python -m training.doctor DATA --fix OUT`"
SENTENCE_CHARACTERS = 900  # leaves room in SageMaker's 1024 characters of FailureReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Pictures to be seen side by side, and one line about them."""

    paths: tuple[str, ...]
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judgement."""

    code: str  # stable: for programs
    severity: Severity
    count: int  # of what `title` counts
    title: str
    explanation: str  # why it matters
    action: str  # what to do
    examples: tuple[Example, ...] = ()
    paths: tuple[str, ...] = ()  # every file it is about


def verdict(findings: Iterable[Finding]) -> Verdict:
    """ok (notes allowed), warn or stop: the worst severity."""
    worst = max((RANK[finding.severity] for finding in findings), default=0)
    verdicts: tuple[Verdict, ...] = ("ok", "warn", "stop")
    return verdicts[worst]


def sentence(findings: Sequence[Finding]) -> str:
    """The worst finding and its first files, for a message of at most 900 characters."""
    if not findings:
        return "Nothing was found wrong with the data."
    worst = max(findings, key=lambda finding: RANK[finding.severity])
    others = len([finding for finding in findings if RANK[finding.severity] >= RANK["warn"]]) - 1
    more = f" {counted(others, 'more finding')} of weight." if others > 0 else ""
    action = worst.action.replace("--fix", FIX_COMMAND)
    text = f"{worst.title}.{more} {action} First: "
    shown: list[str] = []
    for example in worst.examples:
        shown.append(" = ".join(example.paths) if len(example.paths) > 1 else "".join(example.paths))
        if len(text) + len("; ".join(shown)) >= SENTENCE_CHARACTERS:
            shown.pop()
            break
    whole = text + "; ".join(shown) if shown else text.removesuffix(" First: ")
    return whole[:SENTENCE_CHARACTERS]


Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def suffix_of(fact: FileFacts) -> str:
    return PurePosixPath(fact.path).suffix.lower()


def paths_of(facts: Iterable[FileFacts]) -> tuple[str, ...]:
    return tuple(fact.path for fact in facts)


def one_by_one(facts: Sequence[FileFacts], caption: Callable[[FileFacts], str]) -> tuple[Example, ...]:
    return tuple(Example(paths=(fact.path,), caption=caption(fact)) for fact in facts[:MOST_EXAMPLES])


def between(first: FileFacts, second: FileFacts) -> str:
    """Where two copies lie, as far as that differs."""
    words = []
    if first.split != second.split:
        words.append(f"{first.split} and {second.split}")
    if first.label != second.label:
        words.append(f"{first.label} and {second.label}")
    return ", ".join(words) or (f"both {first.split} {first.label}" if first.split else f"both {first.label}")


def counted(count: int, singular: str, plural: str = "") -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def is_are(count: int) -> str:
    return "is" if count == 1 else "are"


def has_have(count: int) -> str:
    return "has" if count == 1 else "have"


def percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %".replace(".0 %", " %")


def listed(names: Sequence[str], limit: int = 5) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
