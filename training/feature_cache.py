"""Arrays kept in a folder by the hash of what they were computed from; several jobs may share it.

A file is complete or absent (it is renamed into place), one job computes while others wait for it, and the
files unused for longest go when the folder is full. A folder that cannot be used costs time, never the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Set by SageMaker where machines of a warm pool keep a folder from job to job.
WARM_POOL_VARIABLE = "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"
CACHE_VARIABLE = "KENNEL_CACHE"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """At most `limit_bytes` of features in `folder`."""

    folder: Path
    limit_bytes: int

    def find(self, facts: Mapping[str, Any], shape: tuple[int, int]) -> Floats | None:
        """What was computed from the same facts; None where nothing readable of that shape is there."""
        path = self._path(facts)
        try:
            features: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
            _touch(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            logger.warning("features=%s cannot be read (%s): computed again", path, error)
            return None
        if features.shape != shape or features.dtype != np.float32:
            logger.warning("features=%s have shape %s, not %s: computed again", path, features.shape, shape)
            return None
        return features

    def find_or_compute(
        self, facts: Mapping[str, Any], shape: tuple[int, int], compute: Callable[[], Floats]
    ) -> Floats:
        """One job computes; who asks for the same meanwhile waits and takes its result."""
        with self._locked(facts):
            found = self.find(facts, shape)
            if found is not None:
                logger.info("features=%s reused", self._path(facts))
                return found
            features = compute()
            self.keep(facts, features)
            return features

    def remember(self, facts: Mapping[str, Any], choose: Callable[[], str]) -> str:
        """What was chosen for the same facts before: all jobs must choose alike to share features."""
        path = self._path(facts).with_suffix(".txt")
        with self._locked(facts):
            with contextlib.suppress(OSError):
                return path.read_text(encoding="utf-8")
            chosen = choose()
            with contextlib.suppress(OSError):
                partial = path.with_suffix(f".{os.getpid()}.partial")
                partial.write_text(chosen, encoding="utf-8")
                partial.replace(path)
            return chosen

    def keep(self, facts: Mapping[str, Any], features: Floats) -> None:
        """Write a file, unless there is no room for it."""
        path = self._path(facts)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._make_room(features.nbytes):
                logger.warning(
                    "features of %.3f GB are over feature_cache_gb=%.3f: kept in memory only",
                    features.nbytes / 1e9,
                    self.limit_bytes / 1e9,
                )
                return
            with partial.open("wb") as file:
                np.save(file, features, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            _touch(partial)
            partial.replace(path)
            logger.info("features=%s kept, %.1f MB", path, features.nbytes / 1e6)
        except OSError as error:
            logger.warning("features=%s cannot be written (%s): kept in memory only", path, error)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _make_room(self, needed_bytes: int) -> bool:
        if needed_bytes > self.limit_bytes:
            return False
        files = [(path, path.stat()) for path in self.folder.iterdir() if path.suffix in (".npy", ".partial")]
        used = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime):
            if used + needed_bytes <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)  # a job that has it mapped keeps it
            used -= status.st_size
        return True

    def _path(self, facts: Mapping[str, Any]) -> Path:
        text = json.dumps(facts, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    @contextlib.contextmanager
    def _locked(self, facts: Mapping[str, Any]) -> Iterator[None]:
        """The kernel lets go of the lock when its process dies; without a lock both compute, and no harm."""
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = stack.enter_context(self._path(facts).with_suffix(".lock").open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                logger.warning("feature_cache=%s cannot be locked (%s)", self.folder, error)
            yield


def _touch(path: Path) -> None:
    """Used now: the last to go. By the precise clock, as the kernel's own stamps come in ticks."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def find_folder(setting: str) -> Path:
    """The one a hyperparameter names; `auto`: the warm pool's, then $KENNEL_CACHE, then the system's."""
    if setting != "auto":
        return Path(setting)
    for variable in (WARM_POOL_VARIABLE, CACHE_VARIABLE):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / "features"
    return Path(tempfile.gettempdir()) / f"kennel-features-{os.getuid()}"
