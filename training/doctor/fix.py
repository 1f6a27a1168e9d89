"""A cleaned copy of a data set: a pure plan of what to leave out and why, then files are copied."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.doctor.duplicates import Pair
from training.doctor.files import FileFacts
from training.doctor.findings import HELD_OUT
from training.progress import progress

# Of copies in several splits the first of these keeps its own: a published test set stays comparable.
KEEP_ORDER = {split: rank for rank, split in enumerate(("test", "valid", "train", ""))}
KEPT_NAME = "keep.txt"
REMOVED_NAME = "removed.csv"

UNREADABLE = "unreadable"
CONTRADICTION = "same bytes under another label"
DUPLICATE = "exact duplicate"
NEAR_LEAK = "nearly the same picture as one in valid or test"


class FixError(ValueError):
    """The copy cannot be written there; the message says why and what to do."""


def plan_fix(
    facts: Sequence[FileFacts], *, groups: Sequence[Sequence[int]], pairs: Sequence[Pair]
) -> dict[str, str]:
    """Path -> why it is left out.

    Unreadable files; every copy where copies contradict each other; all but one of exact duplicates; train's
    side of a near-duplicate leak.
    """
    removed = {fact.path: UNREADABLE for fact in facts if fact.reason}
    survivors: dict[str, FileFacts] = {}  # a copy's path -> the copy that stays
    for group in groups:
        copies = sorted(
            (facts[index] for index in group if not facts[index].reason),
            key=lambda fact: (KEEP_ORDER[fact.split], fact.path),
        )
        if len({fact.label for fact in copies}) > 1:
            removed |= {fact.path: CONTRADICTION for fact in copies}
        else:
            removed |= {fact.path: f"{DUPLICATE} of {copies[0].path}" for fact in copies[1:]}
            survivors |= {fact.path: copies[0] for fact in copies}
    for pair in pairs:
        first, second = (
            survivors.get(facts[index].path, facts[index]) for index in (pair.first, pair.second)
        )
        for own, other in ((first, second), (second, first)):
            leaks = own.split == "train" and other.split in HELD_OUT and other.path not in removed
            if leaks and own.path not in removed:
                removed[own.path] = f"{NEAR_LEAK}: {other.path}"
    return removed


def count_reasons(removed: Mapping[str, str]) -> dict[str, int]:
    """Reason -> files, the most frequent first; without the name of the other file."""
    reasons = (UNREADABLE, CONTRADICTION, DUPLICATE, NEAR_LEAK)
    counted = Counter(
        next(reason for reason in reasons if text.startswith(reason)) for text in removed.values()
    )
    return dict(counted.most_common())


def emptied_classes(facts: Sequence[FileFacts], removed: Mapping[str, str]) -> list[str]:
    """`split/label` of which nothing is left."""
    before = {(fact.split, fact.label) for fact in facts}
    after = {(fact.split, fact.label) for fact in facts if fact.path not in removed}
    return sorted("/".join(filter(None, place)) for place in before - after)


def write_cleaned_copy(
    data: Path, destination: Path, facts: Sequence[FileFacts], removed: Mapping[str, str]
) -> None:
    """The kept files under their own paths, keep.txt and removed.csv. Raises FixError before it writes."""
    check_destination(data, destination)
    kept = [fact.path for fact in facts if fact.path not in removed]
    destination.mkdir(parents=True, exist_ok=True)
    for path in progress(kept, total=len(kept), what=f"copy to {destination.name}"):
        copy = destination / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(data / path, copy)  # a copy, not a hard link: who edits it must not edit the input
    write_manifest(destination / KEPT_NAME, facts, removed)
    with (destination / REMOVED_NAME).open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(("path", "reason"))
        writer.writerows(sorted(removed.items()))


def write_manifest(path: Path, facts: Sequence[FileFacts], removed: Mapping[str, str]) -> None:
    """The kept paths, a line each, relative to the data."""
    lines = [f"{fact.path}\n" for fact in facts if fact.path not in removed]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def check_destination(data: Path, destination: Path) -> None:
    """Raises FixError unless `destination` is new or empty, and outside `data`."""
    if destination.exists() and not destination.is_dir():
        raise FixError(f"{destination} is a file; name a new folder.")
    if destination.resolve().is_relative_to(data.resolve()):
        raise FixError(f"{destination} lies inside {data}, which is never touched; name a folder elsewhere.")
    if destination.is_dir() and any(destination.iterdir()):
        raise FixError(f"{destination} is not empty; name a new folder.")
