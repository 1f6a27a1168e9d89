"""An object's answers into `<key>.out`: in order, and under that name only when the last one is there.

No fsync: a killed process loses nothing that it wrote, and a .out that a power failure left empty is not
believed; waiting for the disk would cost more than many a prediction.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from local.platform import LocalError

PARTIAL = ".partial"  # folder inside the output; what lies in there never counts
# A fault of this one key; any other fault of writing (a full disk) hits the next object as well.
OWN_FAULTS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ)


class OutputError(LocalError):
    """Nothing more can be written; the message says where and why."""


class Partial(NamedTuple):
    """A file on its way to its name."""

    path: Path
    file: BinaryIO


class Folder:
    """The output folder: makes folders once and gives partial files their numbers."""

    def __init__(self, root: Path) -> None:
        self._root, self._numbers, self._made = root, itertools.count(), set[Path]()
        self._open: set[Partial] = set()
        (root / PARTIAL).mkdir(parents=True, exist_ok=True)
        for leftover in (root / PARTIAL).iterdir():
            leftover.unlink()

    def output_path(self, key: str) -> Path:
        """Where the answers of `key` go."""
        return self._root / f"{key}.out"

    def open_partial(self) -> Partial:
        """A file nobody else has; on the same disk, so that it can be renamed."""
        path = self._root / PARTIAL / str(next(self._numbers))
        partial = Partial(path, path.open("wb"))
        self._open.add(partial)
        return partial

    def close(self) -> None:
        """Drop what is unfinished."""
        for partial in list(self._open):
            self.discard(partial)

    def discard(self, partial: Partial) -> None:
        """Nothing of it stays."""
        self._open.discard(partial)
        with suppress(OSError):  # writes what is buffered, for which a full disk has no room
            partial.file.close()
        partial.path.unlink(missing_ok=True)

    def finish(self, partial: Partial, key: str) -> None:
        """From now on the object counts as finished. Raises OSError, the partial file still there."""
        partial.file.close()
        output = self.output_path(key)
        if output.parent not in self._made:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(output.parent)
        partial.path.rename(output)
        self._open.discard(partial)


class Assembly:
    """Collects one object's answers, which may come in any order and from several threads."""

    def __init__(self, key: str, folder: Folder, *, ends_lines: bool) -> None:
        self.key, self.failure = key, ""
        self._folder, self._ends_lines = folder, ends_lines
        self._lock = threading.Lock()
        self._waiting: dict[int, bytes] = {}
        self._written, self._total = 0, -1
        self._partial: Partial | None = None

    def total_is(self, count: int) -> None:
        """Known before the first answer, where an object is one request."""
        self._total = count

    def add(self, sequence: int, answer: bytes) -> bool:
        """True when this was the last one missing. Raises OutputError."""
        with self._lock:
            if self.failure:
                return False
            self._waiting[sequence] = answer
            return self._guarded()

    def expect(self, count: int) -> bool:
        """There are `count` answers in all; true when they are there already. Raises OutputError."""
        with self._lock:
            self._total = count
            return not self.failure and self._guarded()

    def fail(self, reason: str) -> bool:
        """No .out for this object; true for the first reason, which counts."""
        with self._lock:
            is_first = not self.failure
            self.failure = self.failure or reason
            self._discard()
            return is_first

    def _guarded(self) -> bool:
        try:
            return self._write()
        except OSError as error:
            self._discard()
            if error.errno in OWN_FAULTS:
                self.failure = str(error)
                return True
            raise OutputError(f"{self._folder.output_path(self.key)} cannot be written: {error}.") from error

    def _write(self) -> bool:
        if self._partial is None:
            self._partial = self._folder.open_partial()
        while self._written in self._waiting:
            answer = self._waiting.pop(self._written)
            self._partial.file.writelines(self._ended(answer))
            self._written += 1
        if self._written != self._total:
            return False
        self._folder.finish(self._partial, self.key)
        return True

    def _ended(self, answer: bytes) -> Sequence[bytes]:
        """AssembleWith=Line ends every answer; one that ends its own line gets no empty one."""
        return (answer, b"\n") if self._ends_lines and not answer.endswith(b"\n") else (answer,)

    def _discard(self) -> None:
        if self._partial is not None:
            self._folder.discard(self._partial)
