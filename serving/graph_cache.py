"""Compiled graphs on disk, so that a restart does not compile: whole and our own, or not used.

Not OpenVINO's CACHE_DIR: two processes that start together break each other's file there, and end.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

DIGEST_BYTES = hashlib.sha256().digest_size


class GraphCache:
    """A folder of blobs, each behind its SHA-256; without a folder of our own nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory if directory is not None and _is_ours(directory) else None

    def read(self, key: object) -> bytes | None:
        """The blob kept under this key; None where there is none or it is damaged."""
        if self._directory is None:
            return None
        try:
            content = self._path(self._directory, key).read_bytes()
        except OSError:
            return None
        digest, blob = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return blob if hashlib.sha256(blob).digest() == digest else None

    def write(self, key: object, blob: bytes) -> None:
        """Keep it, if the disk lets us; by a rename, so that nobody reads half of it."""
        if self._directory is None:
            return
        with suppress(OSError):
            handle, name = tempfile.mkstemp(dir=self._directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(blob).digest())
                    file.write(blob)
                Path(name).replace(self._path(self._directory, key))
            except OSError:
                Path(name).unlink(missing_ok=True)

    @staticmethod
    def _path(directory: Path, key: object) -> Path:
        """`key` is what the compiled graph depends on, as plain values."""
        return directory / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.blob"


def _is_ours(directory: Path) -> bool:
    """Made where it is missing. Another user's folder could hold any graph."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory.stat().st_uid == os.geteuid() and os.access(directory, os.W_OK)
    except OSError:
        return False
