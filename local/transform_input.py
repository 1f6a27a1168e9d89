"""The objects of a transform job: everything under a prefix, or what a manifest lists; shared out by key."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from local.platform import LocalError
from local.transform_request import TransformRequest


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object; its answers go to `<key>.out`."""

    key: str  # posix, relative to the prefix
    path: Path


def list_input(request: TransformRequest) -> list[InputObject]:
    """Sorted by key. Raises LocalError where there is nothing to transform."""
    objects = _read_manifest(request.source) if request.is_manifest else _list_prefix(request.source)
    if not objects:
        raise LocalError(f"{request.source} holds no files to transform.")
    return sorted(objects, key=lambda item: item.key)


def share_of_instance(
    objects: Sequence[InputObject], instance: int, num_instances: int
) -> Sequence[InputObject]:
    """Dealt out like cards, in the order of the keys: every key to one instance, none to two.

    The service does not say how it deals; one large object occupies one instance in any case.
    """
    return objects[instance::num_instances]


@contextmanager
def open_object(item: InputObject, *, is_gzipped: bool) -> Iterator[BinaryIO]:
    """The object's bytes, unpacked where the job says so. Reading raises OSError for a damaged archive."""
    with item.path.open("rb") as file:
        if not is_gzipped:
            yield file
            return
        with gzip.open(file, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)


def _list_prefix(prefix: Path) -> list[InputObject]:
    """Every file below a folder, whatever it is called; hidden ones are this machine's clutter and stay here.

    A prefix that is a file, or the beginning of file names, works as on S3.
    """
    if prefix.is_dir():
        found = (path for path in prefix.rglob("*") if path.is_file())
        keys = {path.relative_to(prefix).as_posix(): path for path in found}
    elif prefix.is_file():
        keys = {prefix.name: prefix}
    else:
        found = (path for path in prefix.parent.glob(f"{_escape(prefix.name)}*") if prefix.parent.is_dir())
        files = (file for path in found for file in (path.rglob("*") if path.is_dir() else (path,)))
        keys = {path.relative_to(prefix.parent).as_posix(): path for path in files if path.is_file()}
        if not keys:
            raise LocalError(f"There is no folder {prefix} to transform.")
    return [InputObject(key, path) for key, path in keys.items() if not _is_hidden(key)]


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(key).parts)


def _escape(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _read_manifest(manifest: Path) -> list[InputObject]:
    """`[{"prefix": "folder"}, "relative/1.jpg", ...]`; a relative prefix starts at the manifest's folder.

    An object that is listed but absent fails by itself when it is read, as on S3.
    """
    form = '[{"prefix": "folder"}, "1.jpg", ...]'
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
        prefix = Path(str(entries[0]["prefix"]).removeprefix("file://"))
        keys = [str(key) for key in entries[1:]]
    except FileNotFoundError:
        raise LocalError(f"There is no manifest {manifest}.") from None
    except (ValueError, LookupError, TypeError):
        raise LocalError(f"{manifest} is not a manifest; it must have the form {form}.") from None
    outside = [key for key in keys if ".." in PurePosixPath(key).parts or PurePosixPath(key).is_absolute()]
    if outside:
        raise LocalError(f"{manifest} lists {outside[0]!r}, which reaches outside its prefix.")
    return [InputObject(key, manifest.parent / prefix / key) for key in dict.fromkeys(keys)]
