"""Class sizes, classes missing from a split, names too alike."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from training.doctor.files import FileFacts
from training.doctor.findings import (
    HELD_OUT,
    SPLITS,
    Finding,
    Severity,
    counted,
    group_by,
    has_have,
    is_are,
    listed,
)

IMBALANCE_NOTE, IMBALANCE_WARN = 3.0, 10.0  # largest / smallest class; at 10 accuracy hides the smallest
TINY_CLASS = 20  # training images; fewer teach a class by heart
SHORTEST_SPELLING = 5  # letters; shorter names differ by one letter and mean different things (cat, car)
FOLDER_CODE = re.compile(r"^(n\d{8}-|\d{3}\.)")  # n02085620-Chihuahua, 001.Affenpinscher


def judge_classes(facts: Sequence[FileFacts]) -> list[Finding]:
    """Splits and classes that are absent, tiny, or far from equal in size."""
    counts = count_by_split(facts)
    labels = sorted({fact.label for fact in facts})
    findings = []
    if len(labels) < 2:
        findings.append(
            _about_classes(
                "one-class",
                "stop",
                labels,
                "There is only one class",
                "With one label there is nothing to tell apart.",
                "Give a folder per class.",
            )
        )
    if any(fact.split for fact in facts):
        findings += _judge_splits(counts, labels)
    teaching = counts.get("train", counts.get("", {}))
    return findings + _judge_sizes(teaching)


def _judge_splits(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[Finding]:
    findings = []
    if "train" not in counts:
        return [
            _about_classes(
                "no-train",
                "stop",
                [""],
                "There is no training split",
                "There is nothing to learn from.",
                "Name the folder train.",
            )
        ]
    if "valid" not in counts:
        findings.append(
            _about_classes(
                "no-valid",
                "warn",
                [""],
                "There is no validation split",
                "Without one the last epoch is exported, whatever it is worth.",
                "Move a tenth of train to valid, whole groups of alike pictures together.",
            )
        )
    return findings + _missing_labels(counts, labels)


def _missing_labels(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[Finding]:
    findings = []
    strangers = [label for label in labels if label not in counts["train"]]
    if strangers:
        findings.append(
            _about_classes(
                "missing-from-train",
                "stop",
                strangers,
                f"{counted(len(strangers), 'class', 'classes')} of valid or test "
                f"{is_are(len(strangers))} missing from train: {listed(strangers)}",
                "It cannot be learnt, and the trainer refuses the split.",
                "Add training images, correct the folder's name, or delete the folder.",
            )
        )
    for split in HELD_OUT:
        absent = [label for label in counts["train"] if label not in counts.get(split, {})]
        if split in counts and absent:
            findings.append(
                _about_classes(
                    f"missing-from-{split}",
                    "warn",
                    absent,
                    f"{counted(len(absent), 'class', 'classes')} {is_are(len(absent))} missing from {split}: "
                    f"{listed(absent)}",
                    f"Nothing is measured about it on {split}.",
                    f"Move some of its images to {split}.",
                )
            )
    return findings


def _judge_sizes(counts: Mapping[str, int]) -> list[Finding]:
    findings = []
    tiny = sorted((label for label, count in counts.items() if count < TINY_CLASS), key=lambda k: counts[k])
    if tiny:
        findings.append(
            _about_classes(
                "tiny-class",
                "warn",
                tiny,
                f"{counted(len(tiny), 'class', 'classes')} {has_have(len(tiny))} fewer than {TINY_CLASS} "
                f"images to learn from: {listed([f'{label} ({counts[label]})' for label in tiny])}",
                "So few are learnt by heart and not recognised elsewhere.",
                "Collect more, merge the class with a neighbour, or leave it out.",
            )
        )
    smallest, largest = min(counts.values(), default=0), max(counts.values(), default=0)
    ratio = largest / max(smallest, 1)
    if ratio >= IMBALANCE_NOTE:
        few, many = min(counts, key=lambda k: counts[k]), max(counts, key=lambda k: counts[k])
        finding = _about_classes(
            "imbalance",
            "warn" if ratio >= IMBALANCE_WARN else "note",
            [few, many],
            f"The largest class has {ratio:.0f} times as many training images as the smallest "
            f"({many}: {largest}, {few}: {smallest})",
            "Accuracy is then the accuracy of the large classes.",
            "Judge by macro F1 (scores.json has it); collect more of the small classes.",
        )
        findings.append(
            replace(finding, count=sum(ratio_of > IMBALANCE_NOTE for ratio_of in _ratios(counts)))
        )
    return findings


def _ratios(counts: Mapping[str, int]) -> list[float]:
    """How many times smaller than the largest each class is."""
    largest = max(counts.values())
    return [largest / max(count, 1) for count in counts.values()]


def _about_classes(
    code: str, severity: Severity, labels: Sequence[str], title: str, explanation: str, action: str
) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        count=len(labels),
        title=title,
        explanation=explanation,
        action=action,
    )


def count_by_split(facts: Sequence[FileFacts]) -> dict[str, dict[str, int]]:
    """Split -> label -> images that can be read; splits in the usual order, none that is empty."""
    counted = Counter((fact.split, fact.label) for fact in facts if not fact.reason)
    present = [split for split in ("", *SPLITS) if any(key[0] == split for key in counted)]
    return {
        split: {
            label: counted[split, label] for label in sorted({key[1] for key in counted if key[0] == split})
        }
        for split in present
    }


def judge_label_names(labels: Iterable[str]) -> list[Finding]:
    """Labels that differ only by case, separators, a plural s or one letter."""
    findings = []
    names = sorted(labels)
    same = [group for group in group_by(names, _plain_name).values() if len(group) > 1]
    if same:
        findings.append(
            _about_classes(
                "same-label",
                "warn",
                [label for group in same for label in group],
                f"Class names differ only by case, spaces or accents: {listed(['/'.join(g) for g in same])}",
                "They are most likely one class; a file system that ignores case merges them silently.",
                "Merge the folders.",
            )
        )
    close = [pair for pair in _one_letter_apart(names) if not any(set(pair) <= set(g) for g in same)]
    if close:
        findings.append(
            _about_classes(
                "close-label",
                "warn",
                [label for pair in close for label in pair],
                f"Class names differ by one letter: {listed(['/'.join(pair) for pair in close])}",
                "One may be a misspelling of the other; its images are then taught as a class of their own.",
                "Merge the folders if they mean the same.",
            )
        )
    return findings


def _plain_name(label: str) -> str:
    """Without an ordering code, case, accents and separators."""
    decomposed = unicodedata.normalize("NFKD", FOLDER_CODE.sub("", label)).casefold()
    return "".join(letter for letter in decomposed if letter.isalnum()) or label


def _one_letter_apart(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs whose plain names are one insertion, deletion, substitution or swap apart; digits always tell."""
    buckets: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        name = _plain_name(label)
        for shorter in {name, *(name[:place] + name[place + 1 :] for place in range(len(name)))}:
            buckets[shorter].add(label)
    candidates = {
        (first, second)
        for bucket in buckets.values()
        for first in bucket
        for second in bucket
        if first < second
    }
    return sorted(pair for pair in candidates if _is_misspelling(*map(_plain_name, pair)))


def _is_misspelling(first: str, second: str) -> bool:
    if sorted(filter(str.isdigit, first)) != sorted(filter(str.isdigit, second)) or first == second:
        return False
    shorter, longer = sorted((first, second), key=len)
    if longer == f"{shorter}s":
        return True
    if len(shorter) < SHORTEST_SPELLING:
        return False
    if len(shorter) < len(longer):
        return True  # the buckets hold only names that are one deletion apart
    different = [place for place in range(len(first)) if first[place] != second[place]]
    swapped = len(different) == 2 and first[different[0]] == second[different[1]]
    return len(different) == 1 or (swapped and different[1] == different[0] + 1)
