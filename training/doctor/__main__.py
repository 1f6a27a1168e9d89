"""`python -m training.doctor DATA` looks a data set over before anything is trained on it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.doctor.cache import Cache, default_cache_path
from training.doctor.diagnosis import diagnose
from training.doctor.duplicates import Pair, find_exact_duplicates, find_near_duplicates
from training.doctor.files import FileFacts, examine
from training.doctor.findings import HELD_OUT
from training.doctor.fix import (
    check_destination,
    count_reasons,
    emptied_classes,
    plan_fix,
    write_cleaned_copy,
    write_manifest,
)
from training.doctor.report import (
    JSON_NAME,
    PAGE_NAME,
    Diagnosis,
    describe_findings,
    summary_words,
    write_json,
    write_page,
)
from training.doctor.suspects import Suspect

logger = logging.getLogger("training.doctor")

STOP_CODE = 1
ERROR_CODE = 2  # as argparse's


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 for ok and warn, 1 for stop, 2 where the data could not be looked at."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return _examine(options)
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return ERROR_CODE


def _examine(options: argparse.Namespace) -> int:
    started = time.monotonic()
    _check(options)
    facts = _read_facts(options)
    groups, pairs = find_exact_duplicates(facts), find_near_duplicates(facts)
    suspects = _find_suspects(facts, options)
    diagnosis = Diagnosis(
        data=options.data.resolve(),
        facts=tuple(facts),
        findings=tuple(diagnose(facts, groups=groups, pairs=pairs, suspects=suspects)),
        settings=_settings(options, facts, seconds=time.monotonic() - started),
    )
    write_json(diagnosis, options.output / JSON_NAME)
    write_page(diagnosis, options.output / PAGE_NAME)
    _say(f"{diagnosis.verdict}: {summary_words(diagnosis)}")
    for line in describe_findings(diagnosis.findings):
        _say(f"  {line}")
    print(f"With pictures: {options.output / PAGE_NAME}   For programs: {options.output / JSON_NAME}")
    _fix(options, facts, groups=groups, pairs=pairs)
    return STOP_CODE if diagnosis.verdict == "stop" else 0


def _check(options: argparse.Namespace) -> None:
    """What cannot work is said before minutes are spent."""
    if not options.data.is_dir():
        raise NotADirectoryError(
            f"{options.data} is not a folder; give one with a folder per class or split."
        )
    if options.output.resolve().is_relative_to(options.data.resolve()):
        raise ValueError(f"--output {options.output} lies inside {options.data}, which is never touched.")
    if options.artifact is not None and not options.artifact.exists():
        raise FileNotFoundError(f"{options.artifact} does not exist; give a model.tar.gz or its folder.")
    if options.fix is not None:
        check_destination(options.data, options.fix)


def _read_facts(options: argparse.Namespace) -> list[FileFacts]:
    cache: contextlib.AbstractContextManager[Cache | None] = (
        Cache(default_cache_path()) if options.cache else contextlib.nullcontext()
    )
    with cache as opened:
        facts = examine(options.data, cache=opened)
    if not facts:
        raise ValueError(
            f"{options.data} holds no images: it needs a folder per class, in a folder per split."
        )
    return facts


def _find_suspects(facts: Sequence[FileFacts], options: argparse.Namespace) -> list[Suspect]:
    if options.artifact is None:
        return []
    from training.doctor.mislabelled import find_suspects  # torch and OpenVINO: only with an artifact

    return find_suspects(facts, options.data, options.artifact, splits=_suspect_splits(facts, options))


def _suspect_splits(facts: Sequence[FileFacts], options: argparse.Namespace) -> tuple[str, ...]:
    present = tuple(sorted({fact.split for fact in facts}))
    held_out = tuple(split for split in present if split in HELD_OUT)
    return held_out if held_out and options.suspects == "held-out" else present


def _settings(options: argparse.Namespace, facts: Sequence[FileFacts], *, seconds: float) -> dict[str, str]:
    settings = {"data": str(options.data), "seconds": f"{seconds:.1f}"}
    if options.artifact is not None:
        splits = ", ".join(split or "all images" for split in _suspect_splits(facts, options))
        settings |= {"artifact": str(options.artifact), "mislabelled looked for in": splits}
    else:
        settings["mislabelled"] = "not looked for: give --artifact"
    return settings


def _fix(
    options: argparse.Namespace,
    facts: Sequence[FileFacts],
    *,
    groups: Sequence[Sequence[int]],
    pairs: Sequence[Pair],
) -> None:
    if options.fix is None and options.manifest is None:
        return
    removed = plan_fix(facts, groups=groups, pairs=pairs)
    if options.fix is not None:
        write_cleaned_copy(options.data, options.fix, facts, removed)
        print(f"Cleaned copy: {options.fix}")
    if options.manifest is not None:
        write_manifest(options.manifest, facts, removed)
        print(f"What to keep: {options.manifest}")
    print(f"  {len(facts) - len(removed)} files kept, {len(removed)} left out")
    for reason, count in count_reasons(removed).items():
        print(f"  {count:>6}  {reason}")
    for place in emptied_classes(facts, removed):
        _say(f"  nothing is left of {place}")


def _say(line: str) -> None:
    """A folder's name may hold bytes that no terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.doctor",
        description="Look a data set over before training: broken and odd files, duplicates, leaks, "
        "contradictions, class sizes, shift between splits and, with a trained artifact, mislabelled files.",
        epilog="Exit code 0: ok or warn; 1: stop; 2: it could not be looked at.",
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="folder with train, valid, test; or class folders"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/doctor"),
        help="gets doctor.html and doctor.json (build/doctor)",
    )
    parser.add_argument(
        "--artifact", type=Path, help="model.tar.gz or its folder: look for mislabelled files"
    )
    parser.add_argument(
        "--suspects",
        choices=("held-out", "all"),
        default="held-out",
        help="where: valid and test, which the model has not learnt from (default), or train too",
    )
    parser.add_argument("--fix", type=Path, metavar="OUT", help="write a cleaned copy; DATA is never touched")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="only list what --fix would keep")
    parser.add_argument(
        "--no-cache", dest="cache", action="store_false", help="look at every file anew, remember nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
