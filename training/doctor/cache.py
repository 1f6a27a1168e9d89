"""What the doctor knows from earlier runs: a file's checksum by its stat, a picture's facts by its checksum.

One SQLite file in $KENNEL_CACHE, or in ~/.cache/kennel; it may be deleted at any time. A cache that cannot be
used costs a warning and time, never the run.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "KENNEL_CACHE"
FLUSH_ROWS = 500  # a killed run loses at most these
# A file written twice within a tick of the clock keeps its times: only files at rest are known by their stat.
SETTLE_SECONDS = 2.0  # FAT's tick, the coarsest

SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    path BLOB PRIMARY KEY, bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, sha256 TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (sha256 TEXT PRIMARY KEY, version TEXT, facts TEXT);
"""
FIND_CHECKSUM = (
    "SELECT sha256 FROM file WHERE path = ? AND bytes = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?"
)
FIND_FACTS = "SELECT facts FROM content WHERE sha256 = ? AND version = ?"


def default_cache_path() -> Path:
    """`doctor.sqlite3` in $KENNEL_CACHE, or in ~/.cache/kennel."""
    folder = os.environ.get(CACHE_VARIABLE)
    return (Path(folder) if folder else Path.home() / ".cache" / "kennel") / "doctor.sqlite3"


class Cache:
    """`with Cache(default_cache_path()) as cache: examine(data, cache=cache)`; threads may share it."""

    def __init__(self, path: Path, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self.path = path
        self._settle_ns = int(settle_seconds * 1e9)
        self._lock = threading.Lock()
        self._files: list[tuple[bytes, int, int, int, int, str]] = []  # not yet written
        self._contents: list[tuple[str, str, str]] = []
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _open(path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def find_checksum(self, path: Path, status: os.stat_result) -> str | None:
        """The sha256 of a file that has not changed since it was read."""
        return self._find(FIND_CHECKSUM, _stat_key(path, status))

    def find_facts(self, sha256: str, version: str) -> str | None:
        """What `keep_facts` was given for these bytes by the same version of the code."""
        return self._find(FIND_FACTS, (sha256, version))

    def keep_checksum(self, path: Path, status: os.stat_result, sha256: str) -> None:
        """`status` is from before the bytes were read."""
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < self._settle_ns:
            return
        with self._lock:
            self._files.append((*_stat_key(path, status), sha256))
            self._flush(FLUSH_ROWS)

    def keep_facts(self, sha256: str, version: str, facts: str) -> None:
        """Replaces what another version found."""
        with self._lock:
            self._contents.append((sha256, version, facts))
            self._flush(FLUSH_ROWS)

    def close(self) -> None:
        """Write what is left; afterwards the cache knows nothing."""
        with self._lock:
            self._flush(1)
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _find(self, query: str, key: tuple[object, ...]) -> str | None:
        with self._lock:
            if self._connection is None:
                return None
            try:
                row = self._connection.execute(query, key).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
        return row[0] if row and isinstance(row[0], str) else None

    def _flush(self, min_rows: int) -> None:
        """One short transaction, so that several runs can share the file."""
        if len(self._files) + len(self._contents) < min_rows:
            return
        try:
            if self._connection is not None:
                with self._connection:
                    self._connection.executemany("REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?)", self._files)
                    self._connection.executemany("REPLACE INTO content VALUES (?, ?, ?)", self._contents)
        except sqlite3.Error as error:
            self._give_up(error)
        self._files.clear()
        self._contents.clear()

    def _give_up(self, error: Exception) -> None:
        logger.warning("cache=%s is not used: %s", self.path, error)
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if _is_corrupt(error):
            self.path.unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not _is_corrupt(error):
            raise
        logger.warning("cache=%s is broken and begun anew: %s", path, error)
        path.unlink()
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)  # every use is under the lock
    try:
        connection.executescript(SCHEMA)
        for table in ("file", "content"):  # other columns: another program's, or a later Kennel's
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_corrupt(error: Exception) -> bool:
    """Its subclasses tell of a full disk, a lock or missing rights: nothing that deleting would mend."""
    return type(error) is sqlite3.DatabaseError


def _stat_key(path: Path, status: os.stat_result) -> tuple[bytes, int, int, int, int]:
    return (
        os.fsencode(path.absolute()),
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,  # set by the kernel: tells `cp -p` and a restored mtime
        status.st_ino,
    )
