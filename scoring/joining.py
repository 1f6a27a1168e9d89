"""Which answer belongs to which image: by path, or by its end where the folders differ; not by name alone.

The service's documentation contradicts itself on the folders of .out files, so `dog/1.jpg.out` may stand for
`test/dog/1.jpg` as long as no other image ends the same way. Nothing is dropped: what cannot be joined is
listed.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from scoring.items import Answer, Item, read_answers

FAILED = "failed.jsonl"  # a local transform job's list of objects without an answer, beside the outputs
PATH_COLUMNS, LABEL_COLUMNS = ("path", "key", "file", "image"), ("label", "class", "target")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known beforehand of each image: its label, or None."""

    labels: Mapping[str, str | None]  # path -> label, sorted by path
    images_dir: Path | None = None


@dataclass(slots=True)
class Oddities:
    """What did not fit: (path, output) pairs and outputs."""

    renamed: list[tuple[str, str]] = field(default_factory=list)
    duplicated: list[tuple[str, str]] = field(default_factory=list)
    unexpected: list[tuple[str, str]] = field(default_factory=list)  # (output, why)


def read_truth(source: Path, labels: Sequence[str]) -> Truth:
    """From a folder of images, whose first folder is the label, or a CSV of paths and labels.

    Raises ValueError for a CSV that cannot be used, FileNotFoundError where there is neither.
    """
    if source.is_dir():
        return build_truth(list_files(source), labels, images_dir=source)
    return Truth(dict(sorted(_read_csv(source, set(labels)).items())))


def build_truth(paths: Iterable[str], labels: Sequence[str], *, images_dir: Path | None = None) -> Truth:
    """The first folder of each path, where it is a label."""
    known = set(labels)
    return Truth({path: _label_of(path, known) for path in sorted(paths)}, images_dir)


def read_label_names(source: Path) -> list[str]:
    """The labels a folder or CSV names, sorted, as the trainer sorts its folders."""
    if source.is_dir():
        return sorted(entry.name for entry in os.scandir(source) if entry.is_dir() and entry.name[0] != ".")
    return sorted({label for label in _read_csv(source, None).values() if label})


def list_files(folder: Path) -> Iterator[str]:
    """Posix paths relative to `folder`, hidden ones left out; a string each, for there may be a million."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(f"{prefix}{entry.name}/")
                else:
                    yield f"{prefix}{entry.name}"


def join(truth: Truth, outputs: Path, labels: Sequence[str], oddities: Oddities) -> Iterator[Item]:
    """One item per image of the truth, as the outputs are read; missing ones last. `oddities` is filled.

    `outputs` is a folder of .out files, or one file of many lines.
    """
    reader = _Reader(outputs, labels)
    waiting = dict.fromkeys(truth.labels)  # a set that keeps the order
    strays: list[tuple[str, int, str]] = []
    for name, place, source, answer in reader.read_all():
        if name in waiting:
            del waiting[name]
            yield _item(name, truth, answer)
        elif name in truth.labels:
            oddities.duplicated.append((name, source))
        else:
            strays.append((name, place, source))
    yield from _join_strays(strays, reader, truth, waiting, oddities)
    reasons = _read_reasons(outputs)
    for path in waiting:
        reason = reasons.get(path) or reasons.get(path.partition("#")[0]) or "no output"
        yield Item(path=path, label=truth.labels[path], log_probabilities=None, error=reason)


def read_outputs(input_dir: Path, output_dir: Path, labels: Sequence[str]) -> list[Item]:
    """One item per file under `input_dir` (hidden ones skipped), sorted by path."""
    if not input_dir.is_dir():
        raise NotADirectoryError(f"The input folder {str(input_dir)!r} does not exist or is no folder.")
    items = join(read_truth(input_dir, labels), output_dir, labels, Oddities())
    return sorted(items, key=lambda item: item.path)


class _Reader:
    """The outputs, by name."""

    def __init__(self, outputs: Path, labels: Sequence[str]) -> None:
        self._root, self._labels = outputs, labels

    def read_all(self) -> Iterator[tuple[str, int, str, Answer]]:
        """(item's name, line from 0, output, answer); a lone answer has its output's name."""
        if self._root.is_file():
            yield from self._read_lines(self._root)
            return
        if not self._root.is_dir():
            return
        for source in sorted(file for file in list_files(self._root) if file.endswith(".out")):
            name = source.removesuffix(".out")
            answers = self._read(source)
            for place, answer in enumerate(answers):
                yield (
                    answer.name or (name if len(answers) == 1 else f"{name}#{place + 1}"),
                    place,
                    source,
                    answer,
                )

    def read_one(self, source: str, place: int) -> Answer:
        """An answer once more, so that strays need not be kept."""
        if self._root.is_file():
            return next(answer for _, at, _, answer in self._read_lines(self._root) if at == place)
        return self._read(source)[place]

    def _read(self, source: str) -> list[Answer]:
        try:
            return read_answers((self._root / source).read_bytes(), self._labels)
        except OSError as error:
            return [Answer("", None, str(error))]

    def _read_lines(self, file: Path) -> Iterator[tuple[str, int, str, Answer]]:
        name = file.name.removesuffix(".out")
        with file.open("rb") as lines:
            for place, line in enumerate(lines):
                if line.strip():
                    (answer,) = read_answers(line, self._labels)
                    yield answer.name or f"{name}#{place + 1}", place, f"{file.name}#{place + 1}", answer


def _join_strays(
    strays: Sequence[tuple[str, int, str]],
    reader: _Reader,
    truth: Truth,
    waiting: dict[str, None],
    oddities: Oddities,
) -> Iterator[Item]:
    """Outputs in other folders than their images, where the end of the path leaves no doubt."""
    by_name: dict[str, list[str]] = {}
    for path in truth.labels if strays else ():
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    for name, place, source in strays:
        alike = [path for path in by_name.get(name.rpartition("/")[2], ()) if _end_alike(path, name)]
        if len(alike) != 1:
            why = f"it could be any of {len(alike)} images" if alike else "there is no such image"
            oddities.unexpected.append((source, why))
        elif alike[0] in waiting:
            del waiting[alike[0]]
            oddities.renamed.append((alike[0], source))
            yield _item(alike[0], truth, reader.read_one(source, place))
        else:
            oddities.duplicated.append((alike[0], source))


def _end_alike(first: str, second: str) -> bool:
    return f"/{first}".endswith(f"/{second}") or f"/{second}".endswith(f"/{first}")


def _item(path: str, truth: Truth, answer: Answer) -> Item:
    return Item(
        path=path,
        label=truth.labels[path],
        log_probabilities=answer.log_probabilities,
        error=answer.error,
    )


def _label_of(path: str, known: set[str]) -> str | None:
    folder, *below = PurePosixPath(path).parts
    return folder if below and folder in known else None


def _read_csv(source: Path, known: set[str] | None) -> dict[str, str | None]:
    """Path -> label. The first row may name the columns; else they are path and label."""
    if not source.is_file():
        raise FileNotFoundError(f"There is neither a folder nor a CSV file {str(source)!r}.")
    found: dict[str, str | None] = {}
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        place_of_path, place_of_label = 0, 1
        for number, row in enumerate(rows, start=1):
            if number == 1 and (columns := _columns(row)):
                place_of_path, place_of_label = columns
                continue
            if not row:
                continue
            if len(row) <= max(place_of_path, place_of_label):
                raise ValueError(f"{source}:{number} has {len(row)} columns; a path and a label are needed.")
            path, label = row[place_of_path], row[place_of_label] or None
            if label is not None and known is not None and label not in known:
                raise ValueError(f"{source}:{number}: {label!r} is not one of the {len(known)} labels.")
            if found.setdefault(path, label) != label:
                raise ValueError(
                    f"{source}:{number}: {path!r} has two labels, {found[path]!r} and {label!r}."
                )
    return found


def _columns(row: Sequence[str]) -> tuple[int, int] | None:
    names = [name.strip().lower() for name in row]
    path = next((names.index(name) for name in PATH_COLUMNS if name in names), None)
    label = next((names.index(name) for name in LABEL_COLUMNS if name in names), None)
    return None if path is None or label is None else (path, label)


def _read_reasons(outputs: Path) -> dict[str, str]:
    """Why a local job's objects have no answer; a torn last line is passed over."""
    reasons = {}
    file = outputs / FAILED
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
            reasons[str(entry["key"])] = str(entry["reason"])
        except (ValueError, LookupError, TypeError):
            continue
    return reasons
