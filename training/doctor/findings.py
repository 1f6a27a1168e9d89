"""Facts about files -> what is wrong with a data set: pure functions, worst finding first.

Every finding says how many, why it matters and what to do, and names every file it is about.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import NormalDist, median
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data import IMAGE_SUFFIXES
from training.doctor.cache import Cache
from training.doctor.duplicates import Pair, find_exact_duplicates, find_near_duplicates
from training.doctor.files import FileFacts, examine

Severity = Literal["note", "warn", "stop"]
Verdict = Literal["ok", "warn", "stop"]
RANK: dict[str, int] = {"note": 0, "ok": 0, "warn": 1, "stop": 2}
SPLITS = ("train", "valid", "test")
HELD_OUT = ("valid", "test")

MOST_EXAMPLES = 8  # per finding; the rest is in doctor.json
MOST_SUSPECT_EXAMPLES = 40  # mislabelled items are for looking through
MAX_UNREADABLE = 0.01  # the trainer's own default, above which it refuses the split
EXTREME_ASPECT = 3.0  # the centre crop then sees less than a third of the picture
NEAR_UNIFORM_CONTRAST = 6.0  # levels of 255: tiles of bare water lie below, the flattest dog photos above 10
PLACEHOLDER_COPIES = 5  # "image not available" comes in numbers; an accidental copy comes twice
MANY_ODD = 0.01  # of the files: fewer odd ones teach nothing
MANY_DUPLICATES = 0.01  # of a split: below, counting a picture twice changes no metric visibly
IMBALANCE_NOTE, IMBALANCE_WARN = 3.0, 10.0  # largest / smallest class; at 10 accuracy hides the smallest
TINY_CLASS = 20  # training images; fewer teach a class by heart
PSI_NOTE, PSI_WARN = 0.1, 0.25  # the usual thresholds of credit scoring (Siddiqi 2006)
PSI_BINS = 10
CHANCE = NormalDist().inv_cdf(0.999)  # a shift is told only where it is larger than 999 of 1000 chance ones
SHORTEST_SPELLING = 5  # letters; shorter names differ by one letter and mean different things (cat, car)
COUNTER_FACTOR = 10  # a number up to this many times the number of files only counts them (0001.jpg)
FIX_COMMAND = "`python -m training.doctor DATA --fix OUT`"
SENTENCE_CHARACTERS = 900  # leaves room in SageMaker's 1024 characters of FailureReason

# The format Pillow names -> the endings it goes by. What is not here is not judged.
SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "MPO": ".jpg .jpeg .jpe .mpo",  # a JPEG with a second picture behind it: phones write them as .jpg
    "PNG": ".png .apng",
    "GIF": ".gif",
    "BMP": ".bmp .dib",
    "DIB": ".bmp .dib",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "AVIF": ".avif",
    "JPEG2000": ".jp2 .j2k .jpx",
    "PPM": ".ppm .pgm .pnm .pbm .pfm",
    "TGA": ".tga",
}
FOLDER_CODE = re.compile(r"^(n\d{8}-|\d{3}\.)")  # n02085620-Chihuahua, 001.Affenpinscher


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A file whose label the model does not believe."""

    path: str
    split: str
    label: str  # as filed
    suggested: str  # as the model sees it
    quality: float  # 0-1, the model's probability of the label it is filed under
    probability: float  # of `suggested`
    is_likely: bool = True  # else the model disagrees, but not more surely than it errs


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How one property is spread over the splits."""

    measure: str
    edges: tuple[float, ...]  # of the chart's bins
    shares: dict[str, tuple[float, ...]]  # split -> share of its images per bin
    medians: dict[str, float]
    psi: dict[str, float]  # held-out split -> population stability index against train


MEASURES: dict[str, Callable[[FileFacts], float]] = {
    "size": lambda fact: math.sqrt(fact.width * fact.height),  # side of the square of as many pixels
    "brightness": lambda fact: fact.brightness,
    "blur": lambda fact: math.log10(1.0 + fact.blur),
}
CHART_BINS = 24


def diagnose(
    facts: Sequence[FileFacts],
    *,
    groups: Sequence[Sequence[int]],
    pairs: Sequence[Pair],
    suspects: Sequence[Suspect] = (),
) -> list[Finding]:
    """Everything there is to say, worst first. `groups`, `pairs`: exact and near duplicates as indices."""
    readable = [fact for fact in facts if not fact.reason]
    findings = [
        *judge_unreadable(facts),
        *judge_files(readable),
        *judge_placeholders(facts, groups),
        *judge_exact_duplicates(facts, groups),
        *judge_near_duplicates(facts, pairs),
        *judge_file_names(facts),
        *judge_classes(facts),
        *judge_label_names({fact.label for fact in facts}),
        *judge_shift(readable),
        *judge_suspects(suspects),
    ]
    return sorted(findings, key=lambda finding: -RANK[finding.severity])


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
    more = f" {_count(others, 'more finding')} of weight." if others > 0 else ""
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


def examine_for_job(splits: Mapping[str, Path], *, cache: Cache | None = None) -> list[Finding]:
    """The same judgements for a training job, whose splits (train, valid, test) lie anywhere; no model."""
    facts = [
        replace(fact, split=split, path=f"{split}/{fact.path}")
        for split, folder in splits.items()
        for fact in examine(folder, cache=cache)
    ]
    return diagnose(facts, groups=find_exact_duplicates(facts), pairs=find_near_duplicates(facts))


# Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way in which a file is no picture."""

    code: str
    applies: Callable[[FileFacts], bool]
    title: str  # after "12 files are"
    explanation: str


FAULTS = (
    Fault(
        code="empty",
        applies=lambda fact: fact.size_bytes == 0,
        title="empty",
        explanation="A download or copy stopped before it began.",
    ),
    Fault(
        code="truncated",
        applies=lambda fact: fact.size_bytes > 0 and fact.truncated,
        title="cut short",
        explanation="The file ends before the picture does: a download or copy stopped half-way.",
    ),
    Fault(
        code="unreadable",
        applies=lambda fact: fact.size_bytes > 0 and not fact.truncated,
        title="unreadable",
        explanation="It is no picture, is of a kind Kennel does not read, or is broken.",
    ),
)


def judge_unreadable(facts: Sequence[FileFacts]) -> list[Finding]:
    """Empty, truncated and otherwise undecodable files; what has no picture's name is only a stray."""
    named = [fact for fact in facts if _suffix(fact) in IMAGE_SUFFIXES]
    broken = [fact for fact in named if fact.reason]
    total, faulty = Counter(fact.split for fact in named), Counter(fact.split for fact in broken)
    is_refused = any(faulty[split] > MAX_UNREADABLE * total[split] for split in faulty)
    findings = []
    for fault in FAULTS:
        chosen = [fact for fact in broken if fault.applies(fact)]
        if chosen:
            findings.append(
                Finding(
                    code=fault.code,
                    severity="stop" if is_refused else "warn",
                    count=len(chosen),
                    title=f"{_count(len(chosen), 'file')} {_is(len(chosen))} {fault.title} "
                    f"({_percent(len(chosen) / len(named))} of all)",
                    explanation=f"{fault.explanation} The trainer leaves such files out, and refuses a split "
                    f"with more than {MAX_UNREADABLE:.0%} of them.",
                    action="Fetch them again, or leave them out with --fix.",
                    examples=_one_by_one(chosen, lambda fact: fact.reason),
                    paths=_paths(chosen),
                )
            )
    return findings + _judge_strays(facts)


def _judge_strays(facts: Sequence[FileFacts]) -> list[Finding]:
    strays = [fact for fact in facts if fact.reason and _suffix(fact) not in IMAGE_SUFFIXES]
    if not strays:
        return []
    return [
        Finding(
            code="stray",
            severity="note",
            count=len(strays),
            title=f"{_count(len(strays), 'file')} beside the pictures",
            explanation="Training passes by files without a picture's file name ending.",
            action="Nothing; --fix leaves them out.",
            examples=_one_by_one(strays, lambda fact: f"{fact.size_bytes} bytes"),
            paths=_paths(strays),
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """A property of one readable file that somebody should know of."""

    code: str
    severity: Severity  # of more than MANY_ODD files
    few: Severity = "note"  # of fewer
    applies: Callable[[FileFacts], bool]
    title: str  # after "12 files"; begins with a verb of SINGULAR
    explanation: str
    action: str
    caption: Callable[[FileFacts], str]


SINGULAR = {"are": "is", "have": "has", "show": "shows"}

FILE_CHECKS = (
    FileCheck(
        code="ignored-suffix",
        severity="warn",
        few="warn",  # nobody misses what is passed by in silence
        applies=lambda fact: _suffix(fact) not in IMAGE_SUFFIXES,
        title="are pictures without a picture's file name ending",
        explanation="Training goes by the ending when it lists a folder, and passes these by.",
        action="Rename them, e.g. to .jpg.",
        caption=lambda fact: f"is {fact.format}",
    ),
    FileCheck(
        code="wrong-extension",
        severity="note",
        applies=lambda fact: (
            _suffix(fact) in IMAGE_SUFFIXES
            and _suffix(fact) not in SUFFIXES.get(fact.format, _suffix(fact)).split()
        ),
        title="are of another format than the file name says",
        explanation="Kennel goes by content; tools that go by the ending, or send it as Content-Type, fail.",
        action="Rename them to what they are.",
        caption=lambda fact: f"is {fact.format}",
    ),
    FileCheck(
        code="animated",
        severity="note",
        applies=lambda fact: fact.frames > 1 and fact.format != "MPO",
        title="have several frames or pages",
        explanation="Only the first frame is used, in training and in serving; it is often blank or a title.",
        action="Look at the first frames; extract the frame that shows the label.",
        caption=lambda fact: f"{fact.frames} frames",
    ),
    FileCheck(
        code="cmyk",
        severity="note",
        applies=lambda fact: fact.mode in ("CMYK", "YCCK"),
        title="are in CMYK, the colours of print",
        explanation="Kennel converts them without a colour profile; hues differ slightly from an RGB copy.",
        action="Nothing where serving sees CMYK too; else convert them to RGB with their profile.",
        caption=lambda fact: fact.mode,
    ),
    FileCheck(
        code="deep",
        severity="note",
        applies=lambda fact: fact.mode.startswith("I") or fact.mode == "F",
        title="have 16 or more bits per pixel",
        explanation="They are scaled from their full range to 8 bits; a picture that uses a small part of it "
        "(radiology, thermal) becomes nearly black.",
        action="Window them to 8 bits yourself, alike for training and serving.",
        caption=lambda fact: f"mode {fact.mode}",
    ),
    FileCheck(
        code="exif-rotated",
        severity="note",
        applies=lambda fact: fact.orientation != 1,
        title="are stored turned and put upright by EXIF",
        explanation="Kennel turns them, in training and in serving; tools that ignore EXIF see them lying.",
        action="Nothing for Kennel; for other tools turn the pixels and drop the tag.",
        caption=lambda fact: f"EXIF orientation {fact.orientation}",
    ),
    FileCheck(
        code="extreme-aspect",
        severity="warn",
        applies=lambda fact: (
            max(fact.width, fact.height) >= EXTREME_ASPECT * max(1, min(fact.width, fact.height))
        ),
        title=f"are {EXTREME_ASPECT:g} times or more as long as wide",
        explanation="The centre crop sees a small part of such a picture, perhaps without the thing.",
        action="Crop them to the thing, or leave them out.",
        caption=lambda fact: f"{fact.width} × {fact.height}",
    ),
    FileCheck(
        code="near-uniform",
        severity="warn",
        applies=lambda fact: fact.contrast < NEAR_UNIFORM_CONTRAST,
        title="show nearly nothing but one shade",
        explanation="Where there is nothing to recognise, a network learns that blank means a label.",
        action="Look at them: a small thing on plain ground is fine; leave out what is blank.",
        caption=lambda fact: f"contrast {fact.contrast:.1f} of 255",
    ),
)


def judge_files(readable: Sequence[FileFacts]) -> list[Finding]:
    """One finding per check of FILE_CHECKS that some file fails."""
    findings = []
    for check in FILE_CHECKS:
        chosen = [fact for fact in readable if check.applies(fact)]
        if chosen:
            verb, rest = check.title.split(" ", 1)
            verb = SINGULAR[verb] if len(chosen) == 1 else verb
            findings.append(
                Finding(
                    code=check.code,
                    severity=check.severity if len(chosen) > MANY_ODD * len(readable) else check.few,
                    count=len(chosen),
                    title=f"{_count(len(chosen), 'file')} {verb} {rest}",
                    explanation=check.explanation,
                    action=check.action,
                    examples=_one_by_one(chosen, check.caption),
                    paths=_paths(chosen),
                )
            )
    return findings


# Duplicates


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
            title=f"{_count(len(many), 'picture')} {_is(len(many))} there {PLACEHOLDER_COPIES} times or more "
            f"({_count(sum(map(len, many)), 'file')})",
            explanation="That is usually a placeholder (“image not available”), not a picture of anything.",
            action="Look; if it is a placeholder, delete every copy.",
            examples=tuple(
                Example(paths=_paths(facts[index] for index in group[:2]), caption=f"{len(group)} times")
                for group in sorted(many, key=len, reverse=True)[:MOST_EXAMPLES]
            ),
            paths=_paths(facts[index] for group in many for index in group),
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
            title = f"{_count(len(chosen), 'picture')} {_is(len(chosen))} {relation.title}"
            affected = _paths(facts[index] for group in chosen for index in group)
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
    return Example(paths=(first.path, second.path), caption=_between(first, second))


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
                    caption=_between(facts[pair.first], facts[pair.second])
                    + (", mirrored" if pair.mirrored else ""),
                )
                for pair in chosen[:MOST_EXAMPLES]
            ]
            ends = sorted({index for pair in chosen for index in (pair.first, pair.second)})
            title = f"{_count(len(chosen), 'pair')} show{'s' if len(chosen) == 1 else ''} {relation.title}"
            affected = _paths(facts[index] for index in ends)
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
            title=f"{_count(len(clashes), 'file name')} {_is(len(clashes))} used under two or more labels"
            + (f" ({against} against another label in train)" if against else ""),
            explanation="If the name stands for a thing (a place, a product, a patient), that thing has two "
            "labels: right where it changed between two pictures, as a building before and after a storm, "
            "wrong where it did not. A warning, not a proof.",
            action="Look at the pairs. Never key on the file name alone, and keep one thing in one split.",
            examples=tuple(_name_example(files) for files in clashes[:MOST_EXAMPLES]),
            paths=_paths(fact for files in clashes for fact in files),
        )
    ]


def _name_example(files: Sequence[FileFacts]) -> Example:
    second = next(fact for fact in files if fact.label != files[0].label)
    return Example(paths=(files[0].path, second.path), caption=_between(files[0], second))


def _is_counter(name: str, num_files: int) -> bool:
    """`0001.jpg`, `IMG_0001.jpg`, `photo.jpg`: each folder has one, it says nothing."""
    numbers = re.findall(r"\d+", PurePosixPath(name).stem)
    if not numbers:
        return True
    return len(numbers) == 1 and int(numbers[0]) <= max(COUNTER_FACTOR * num_files, 10_000)


# Classes


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
    strangers = [label for label in labels if label not in counts["train"]]
    if strangers:
        findings.append(
            _about_classes(
                "missing-from-train",
                "stop",
                strangers,
                f"{_count(len(strangers), 'class', 'classes')} of valid or test "
                f"{_is(len(strangers))} missing from train: {_list(strangers)}",
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
                    f"{_count(len(absent), 'class', 'classes')} {_is(len(absent))} missing from {split}: "
                    f"{_list(absent)}",
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
                f"{_count(len(tiny), 'class', 'classes')} {_has(len(tiny))} fewer than {TINY_CLASS} images "
                f"to learn from: {_list([f'{label} ({counts[label]})' for label in tiny])}",
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
    same = [group for group in _group(names, _plain_name).values() if len(group) > 1]
    if same:
        findings.append(
            _about_classes(
                "same-label",
                "warn",
                [label for group in same for label in group],
                f"Class names differ only by case, spaces or accents: {_list(['/'.join(g) for g in same])}",
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
                f"Class names differ by one letter: {_list(['/'.join(pair) for pair in close])}",
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


# Distributions


def judge_shift(readable: Sequence[FileFacts]) -> list[Finding]:
    """Properties whose distribution in valid or test differs from train's beyond chance."""
    by_split = _group(readable, lambda fact: fact.split)
    findings = []
    for distribution in build_distributions(readable):
        sizes = {split: len(files) for split, files in by_split.items()}
        shifted = {
            split: psi
            for split, psi in distribution.psi.items()
            if psi >= PSI_NOTE and psi > chance_psi(sizes["train"], sizes[split])
        }
        if shifted:
            findings.append(_shift_finding(distribution, shifted, by_split))
    return findings


def _shift_finding(
    distribution: Distribution, shifted: Mapping[str, float], by_split: Mapping[str, Sequence[FileFacts]]
) -> Finding:
    measure = distribution.measure
    where = " and ".join(f"{split} (PSI {psi:.2f})" for split, psi in shifted.items())
    typical = {split: _typical(by_split[split], measure) for split in ("train", *shifted)}
    return Finding(
        code=f"shift-{measure}",
        severity="warn" if max(shifted.values()) >= PSI_WARN else "note",
        count=len(shifted),
        title=f"{measure.capitalize()} is distributed otherwise in train than in {where}",
        explanation=f"From {PSI_NOTE} on the population stability index (PSI) tells a shift, from {PSI_WARN} "
        "on a large one: the split then measures another task than the one that is taught.",
        action="Find out why (another camera, season, source); split at random, or train on both kinds.",
        examples=tuple(
            Example(
                paths=(typical["train"].path, typical[split].path),
                caption=f"typical of train and of {split}: {measure} "
                f"{describe_measure(measure, distribution.medians['train'])} and "
                f"{describe_measure(measure, distribution.medians[split])}",
            )
            for split in shifted
        ),
        paths=(),
    )


def describe_measure(measure: str, value: float) -> str:
    """A value of a measure for people."""
    if measure == "size":
        return f"{value:.0f} px"
    return f"{value:.2f}" if measure == "blur" else f"{value:.0f}"


def _typical(files: Sequence[FileFacts], measure: str) -> FileFacts:
    middle = sorted(files, key=MEASURES[measure])
    return middle[len(middle) // 2]


def build_distributions(readable: Sequence[FileFacts]) -> list[Distribution]:
    """Every measure over every split; PSI where there is a train split to compare with."""
    by_split = _group(readable, lambda fact: fact.split)
    ordered = [split for split in ("", *SPLITS) if split in by_split]
    distributions = []
    for measure, value_of in MEASURES.items() if readable else ():
        values = {split: np.array([value_of(fact) for fact in by_split[split]]) for split in ordered}
        low, high = np.percentile(np.concatenate(list(values.values())), [0.5, 99.5])
        pad = max(0.05 * (high - low), 8.0 if measure == "size" else 0.1)
        edges = np.linspace(max(0.0, low - pad), high + pad, CHART_BINS + 1)
        distributions.append(
            Distribution(
                measure=measure,
                edges=tuple(edges.tolist()),
                shares={split: _shares(split_values, edges) for split, split_values in values.items()},
                medians={split: float(median(split_values)) for split, split_values in values.items()},
                psi={
                    split: population_stability_index(values["train"], values[split])
                    for split in HELD_OUT
                    if split in values and "train" in values
                },
            )
        )
    return distributions


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[float, ...]:
    """Outliers are counted in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple((counts / max(len(values), 1)).tolist())


def population_stability_index(
    expected: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]]
) -> float:
    """Sum of (a - e) ln(a / e) over ten quantile bins of `expected` (Siddiqi, Credit Risk Scorecards, 2006).

    a, e: share of a bin, half an image added to each so that an empty one stays finite. A value that fills
    a whole bin (all tiles 128 x 128) gets a bin of its own.
    """
    cuts = np.unique(np.quantile(expected, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    if len(cuts) < PSI_BINS - 1:
        cuts = np.unique(np.concatenate([cuts, np.nextafter(cuts, -np.inf)]))

    def shares(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(cuts, values, side="left"), minlength=len(cuts) + 1)
        return np.asarray((counts + 0.5) / (len(values) + 0.5 * len(counts)))

    e, a = shares(expected), shares(actual)
    return float(((a - e) * np.log(a / e)).sum())


def chance_psi(num_expected: int, num_actual: int) -> float:
    """What PSI stays below in 999 of 1000 splits drawn at random.

    Without a shift it is (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom (Yurdakul & Naranjo,
    2020); the quantile by Wilson and Hilferty's formula.
    """
    freedom = PSI_BINS - 1
    chi_square = freedom * (1 - 2 / (9 * freedom) + CHANCE * math.sqrt(2 / (9 * freedom))) ** 3
    return chi_square * (1 / num_expected + 1 / num_actual)


# Labels


def judge_suspects(suspects: Sequence[Suspect]) -> list[Finding]:
    """Files a trained model files otherwise, the surest first."""
    if not suspects:
        return []
    likely = sum(suspect.is_likely for suspect in suspects)
    doubtful = len(suspects) - likely
    caution = (
        " Of images it has learnt from it believes the labels it was taught: there are more than it tells."
        if any(suspect.split in ("train", "") for suspect in suspects)
        else ""
    )
    return [
        Finding(
            code="mislabelled",
            severity="warn" if likely else "note",
            count=likely,
            title=f"{_count(likely, 'file')} {_is(likely)} likely mislabelled"
            + (f", {doubtful} more {_is(doubtful)} worth a look" if doubtful else ""),
            explanation="Confident learning: the model says another label as surely as it usually does where "
            f"that label is right. A hard picture looks the same to it, so each needs an eye.{caution}",
            action="Look from the top, move the wrong ones to the right folder; stop when most are right.",
            examples=tuple(
                Example(
                    paths=(suspect.path,),
                    caption=f"filed under {suspect.label}, looks like {suspect.suggested} "
                    f"({_percent(suspect.probability)})" + ("" if suspect.is_likely else ": worth a look"),
                )
                for suspect in suspects[:MOST_SUSPECT_EXAMPLES]
            ),
            paths=tuple(suspect.path for suspect in suspects),
        )
    ]


# Words

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def _group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _suffix(fact: FileFacts) -> str:
    return PurePosixPath(fact.path).suffix.lower()


def _paths(facts: Iterable[FileFacts]) -> tuple[str, ...]:
    return tuple(fact.path for fact in facts)


def _one_by_one(facts: Sequence[FileFacts], caption: Callable[[FileFacts], str]) -> tuple[Example, ...]:
    return tuple(Example(paths=(fact.path,), caption=caption(fact)) for fact in facts[:MOST_EXAMPLES])


def _between(first: FileFacts, second: FileFacts) -> str:
    """Where two copies lie, as far as that differs."""
    words = []
    if first.split != second.split:
        words.append(f"{first.split} and {second.split}")
    if first.label != second.label:
        words.append(f"{first.label} and {second.label}")
    return ", ".join(words) or (f"both {first.split} {first.label}" if first.split else f"both {first.label}")


def _count(count: int, singular: str, plural: str = "") -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %".replace(".0 %", " %")


def _list(names: Sequence[str], limit: int = 5) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
