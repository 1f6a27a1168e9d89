"""Files that are no picture, or an odd one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.data import IMAGE_SUFFIXES
from training.doctor.files import FileFacts
from training.doctor.findings import (
    Finding,
    Severity,
    counted,
    is_are,
    one_by_one,
    paths_of,
    percent,
    suffix_of,
)

MAX_UNREADABLE = 0.01  # the trainer's own default, above which it refuses the split
EXTREME_ASPECT = 3.0  # the centre crop then sees less than a third of the picture
NEAR_UNIFORM_CONTRAST = 6.0  # levels of 255: tiles of bare water lie below, the flattest dog photos above 10
PLACEHOLDER_COPIES = 5  # "image not available" comes in numbers; an accidental copy comes twice
MANY_ODD = 0.01  # of the files: fewer odd ones teach nothing
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
    named = [fact for fact in facts if suffix_of(fact) in IMAGE_SUFFIXES]
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
                    title=f"{counted(len(chosen), 'file')} {is_are(len(chosen))} {fault.title} "
                    f"({percent(len(chosen) / len(named))} of all)",
                    explanation=f"{fault.explanation} The trainer leaves such files out, and refuses a split "
                    f"with more than {MAX_UNREADABLE:.0%} of them.",
                    action="Fetch them again, or leave them out with --fix.",
                    examples=one_by_one(chosen, lambda fact: fact.reason),
                    paths=paths_of(chosen),
                )
            )
    return findings + _judge_strays(facts)


def _judge_strays(facts: Sequence[FileFacts]) -> list[Finding]:
    strays = [fact for fact in facts if fact.reason and suffix_of(fact) not in IMAGE_SUFFIXES]
    if not strays:
        return []
    return [
        Finding(
            code="stray",
            severity="note",
            count=len(strays),
            title=f"{counted(len(strays), 'file')} beside the pictures",
            explanation="Training passes by files without a picture's file name ending.",
            action="Nothing; --fix leaves them out.",
            examples=one_by_one(strays, lambda fact: f"{fact.size_bytes} bytes"),
            paths=paths_of(strays),
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
        applies=lambda fact: suffix_of(fact) not in IMAGE_SUFFIXES,
        title="are pictures without a picture's file name ending",
        explanation="Training goes by the ending when it lists a folder, and passes these by.",
        action="Rename them, e.g. to .jpg.",
        caption=lambda fact: f"is {fact.format}",
    ),
    FileCheck(
        code="wrong-extension",
        severity="note",
        applies=lambda fact: (
            suffix_of(fact) in IMAGE_SUFFIXES
            and suffix_of(fact) not in SUFFIXES.get(fact.format, suffix_of(fact)).split()
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
                    title=f"{counted(len(chosen), 'file')} {verb} {rest}",
                    explanation=check.explanation,
                    action=check.action,
                    examples=one_by_one(chosen, check.caption),
                    paths=paths_of(chosen),
                )
            )
    return findings
