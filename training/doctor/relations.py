"""The same or nearly the same picture twice: copies, leaks between splits, contradictions between labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from training.doctor.duplicates import Pair
from training.doctor.files import FileFacts
from training.doctor.findings import (
    HELD_OUT,
    MOST_EXAMPLES,
    Example,
    Finding,
    Severity,
    between,
    counted,
    is_are,
    paths_of,
)

PLACEHOLDER_COPIES = 5  # "image not available" comes in numbers; an accidental copy comes twice
MANY_DUPLICATES = 0.01  # of a split: below, counting a picture twice changes no metric visibly
COUNTER_FACTOR = 10  # a number up to this many times the number of files only counts them (0001.jpg)


def judge_placeholders(facts: Sequence[FileFacts], groups: Sequence[Sequence[int]]) -> list[Finding]:
    """One picture many times over."""
    many = [group for group in groups if len(group) >= PLACEHOLDER_COPIES and not facts[group[0]].reason]
    if not many:
        return []
    return [
        Finding(
            code="placeholder",
            severity="warn",
            count=len(many),
            title=f"{counted(len(many), 'picture')} {is_are(len(many))} there {PLACEHOLDER_COPIES} times or "
            f"more ({counted(sum(map(len, many)), 'file')})",
            explanation="That is usually a placeholder (“image not available”), not a picture of anything.",
            action="Look; if it is a placeholder, delete every copy.",
            examples=tuple(
                Example(paths=paths_of(facts[index] for index in group[:2]), caption=f"{len(group)} times")
                for group in sorted(many, key=len, reverse=True)[:MOST_EXAMPLES]
            ),
            paths=paths_of(facts[index] for group in many for index in group),
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A way in which two copies of a picture can lie that spoils a run."""

    code: str
    severity: Severity
    title: str  # after "12 pictures"
    explanation: str
    action: str


CONTRADICTION = Relation(
    code="contradiction-exact",
    severity="stop",
    title="filed under two or more labels, byte for byte the same",
    explanation="At least one of the labels is wrong, and no network can learn both.",
    action="Decide which label is right and delete the other copies; --fix drops all copies.",
)
LEAK = Relation(
    code="leak-exact",
    severity="stop",
    title="both in train and in valid or test, byte for byte the same",
    explanation="The network has seen the answer: accuracy on that split is too good to be true.",
    action="Delete the copies in train (--fix does), so that valid and test stay as they are.",
)
LEAK_HELD_OUT = Relation(
    code="leak-held-out",
    severity="warn",
    title="both in valid and in test, byte for byte the same",
    explanation="The epoch is chosen on valid, so that test is no longer quite unseen.",
    action="Delete the copies in valid; --fix does.",
)
DUPLICATE = Relation(
    code="duplicate-exact",
    severity="note",
    title="there more than once inside one split and label",
    explanation="They count double in training and in the metrics.",
    action="Keep one of each; --fix does.",
)
CONTRADICTION_NEAR = Relation(
    code="contradiction-near",
    severity="warn",
    title="nearly the same picture under two labels",
    explanation="Resaved, resized or mirrored copies, or neighbouring shots; if copies, one label is wrong.",
    action="Look at each pair and correct the label that is wrong.",
)
LEAK_NEAR = Relation(
    code="leak-near",
    severity="warn",
    title="nearly the same picture in train and in valid or test",
    explanation="A resaved, resized or mirrored copy gives the answer away as the original would.",
    action="Look at the pairs; if they are copies, delete those in train; --fix does.",
)
LEAK_NEAR_HELD_OUT = Relation(
    code="leak-near-held-out",
    severity="note",
    title="nearly the same picture in valid and in test",
    explanation="The epoch is chosen on valid, so that test is no longer quite unseen.",
    action="Look at the pairs; if they are copies, delete those in valid.",
)
DUPLICATE_NEAR = Relation(
    code="duplicate-near",
    severity="note",
    title="nearly the same picture inside one split and label",
    explanation="They count double in training and in the metrics.",
    action="Keep one of each where they are copies; bursts and neighbouring shots may stay.",
)


def judge_exact_duplicates(facts: Sequence[FileFacts], groups: Sequence[Sequence[int]]) -> list[Finding]:
    """The same bytes across labels, across splits, and inside a split."""
    found: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups:
        members = [index for index in group if not facts[index].reason]
        if len(members) < 2:
            continue  # a broken file has no label to contradict
        for relation in _relations_of_copies([facts[index] for index in members]):
            found[relation.code].append(members)
    findings = []
    for relation in (CONTRADICTION, LEAK, LEAK_HELD_OUT, DUPLICATE):
        chosen = found.get(relation.code, [])
        if chosen:
            examples = [_copies_example(facts, group, relation) for group in chosen[:MOST_EXAMPLES]]
            title = f"{counted(len(chosen), 'picture')} {is_are(len(chosen))} {relation.title}"
            affected = paths_of(facts[index] for group in chosen for index in group)
            finding = _related(relation, len(chosen), title, examples, affected)
            surplus = len(affected) - len(chosen)
            if relation is DUPLICATE and surplus > MANY_DUPLICATES * len(facts):
                finding = replace(finding, severity="warn")
            findings.append(finding)
    return findings


def _relations_of_copies(copies: Sequence[FileFacts]) -> list[Relation]:
    relations = []
    splits = {fact.split for fact in copies}
    if len({fact.label for fact in copies}) > 1:
        relations.append(CONTRADICTION)
    if "train" in splits and splits & set(HELD_OUT):
        relations.append(LEAK)
    elif splits >= set(HELD_OUT):
        relations.append(LEAK_HELD_OUT)
    if len({(fact.split, fact.label) for fact in copies}) < len(copies):
        relations.append(DUPLICATE)
    return relations


def _copies_example(facts: Sequence[FileFacts], group: Sequence[int], relation: Relation) -> Example:
    """Two copies that show what is wrong, not the first two."""
    copies = [facts[index] for index in group]
    first = copies[0]
    differs: Callable[[FileFacts], bool] = {
        CONTRADICTION.code: lambda fact: fact.label != first.label,
        DUPLICATE.code: lambda fact: fact is not first,
    }.get(relation.code, lambda fact: fact.split != first.split)
    if relation is DUPLICATE:
        seen = Counter((fact.split, fact.label) for fact in copies)
        copies = [fact for fact in copies if seen[fact.split, fact.label] > 1]
        first = copies[0]
    second = next(fact for fact in copies if differs(fact))
    return Example(paths=(first.path, second.path), caption=between(first, second))


def judge_near_duplicates(facts: Sequence[FileFacts], pairs: Sequence[Pair]) -> list[Finding]:
    """Resaved, resized and mirrored copies across labels, across splits, and inside a split."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for relation in _relations_of_pair(facts[pair.first], facts[pair.second]):
            found[relation.code].append(pair)
    findings = []
    for relation in (CONTRADICTION_NEAR, LEAK_NEAR, LEAK_NEAR_HELD_OUT, DUPLICATE_NEAR):
        chosen = sorted(found.get(relation.code, []), key=lambda pair: pair.distance)
        if chosen:
            examples = [
                Example(
                    paths=(facts[pair.first].path, facts[pair.second].path),
                    caption=between(facts[pair.first], facts[pair.second])
                    + (", mirrored" if pair.mirrored else ""),
                )
                for pair in chosen[:MOST_EXAMPLES]
            ]
            ends = sorted({index for pair in chosen for index in (pair.first, pair.second)})
            title = f"{counted(len(chosen), 'pair')} show{'s' if len(chosen) == 1 else ''} {relation.title}"
            affected = paths_of(facts[index] for index in ends)
            findings.append(_related(relation, len(chosen), title, examples, affected))
    return findings


def _relations_of_pair(first: FileFacts, second: FileFacts) -> list[Relation]:
    splits = {first.split, second.split}
    relations = [CONTRADICTION_NEAR] if first.label != second.label else []
    if len(splits) == 2:
        return [*relations, LEAK_NEAR if "train" in splits else LEAK_NEAR_HELD_OUT]
    return relations or [DUPLICATE_NEAR]


def _related(
    relation: Relation, count: int, title: str, examples: Sequence[Example], paths: tuple[str, ...]
) -> Finding:
    return Finding(
        code=relation.code,
        severity=relation.severity,
        count=count,
        title=title,
        explanation=relation.explanation,
        action=relation.action,
        examples=tuple(examples),
        paths=paths,
    )


def judge_file_names(facts: Sequence[FileFacts]) -> list[Finding]:
    """The same telling file name (a coordinate, an id) under different labels; counters do not tell."""
    by_name: dict[str, list[FileFacts]] = defaultdict(list)
    for fact in facts:
        by_name[PurePosixPath(fact.path).name].append(fact)
    clashes = [
        files
        for name, files in by_name.items()
        if len({fact.label for fact in files}) > 1 and not _is_counter(name, len(facts))
    ]
    if not clashes:
        return []
    crossing = Counter(
        fact.split
        for files in clashes
        for fact in files
        if fact.split in HELD_OUT
        and any(other.split == "train" and other.label != fact.label for other in files)
    )
    against = " and ".join(f"{crossing[split]} in {split}" for split in HELD_OUT if crossing[split])
    return [
        Finding(
            code="same-name",
            severity="warn",
            count=len(clashes),
            title=f"{counted(len(clashes), 'file name')} {is_are(len(clashes))} used under two or more labels"
            + (f" ({against} against another label in train)" if against else ""),
            explanation="If the name stands for a thing (a place, a product, a patient), that thing has two "
            "labels: right where it changed between two pictures, as a building before and after a storm, "
            "wrong where it did not. A warning, not a proof.",
            action="Look at the pairs. Never key on the file name alone, and keep one thing in one split.",
            examples=tuple(_name_example(files) for files in clashes[:MOST_EXAMPLES]),
            paths=paths_of(fact for files in clashes for fact in files),
        )
    ]


def _name_example(files: Sequence[FileFacts]) -> Example:
    second = next(fact for fact in files if fact.label != files[0].label)
    return Example(paths=(files[0].path, second.path), caption=between(files[0], second))


def _is_counter(name: str, num_files: int) -> bool:
    """`0001.jpg`, `IMG_0001.jpg`, `photo.jpg`: each folder has one, it says nothing."""
    numbers = re.findall(r"\d+", PurePosixPath(name).stem)
    if not numbers:
        return True
    return len(numbers) == 1 and int(numbers[0]) <= max(COUNTER_FACTOR * num_files, 10_000)
