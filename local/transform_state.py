"""What a transform job leaves for its continuation: transform.json, failed.jsonl and the .out files.

A finished object is one whose .out exists; as it gets that name whole, nothing else is written per object.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.platform import LocalError
from local.transform_input import InputObject

STATE, FAILED, LOCK = "transform.json", "failed.jsonl", ".transform.lock"


@dataclass(slots=True, kw_only=True)
class JobState:
    """A job's standing, on disk and here; used inside `open_state`."""

    directory: Path
    identity: Mapping[str, Any]
    pending: list[InputObject]
    kept: int = 0  # objects finished before
    precision: str = ""  # of the answers so far, where the server names it
    failed: dict[str, str] = field(default_factory=dict)  # key -> reason

    def record_failure(self, key: str, reason: str) -> None:
        """At once, so that a killed job has said why."""
        self.failed[key] = reason
        with (self.directory / FAILED).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "reason": reason}) + "\n")

    def choose_precision(self, precision: str) -> None:
        """Raises LocalError where another one answered before: another machine may choose another."""
        if self.kept and self.precision and precision != self.precision:
            raise LocalError(
                f"The server answers in {precision or 'an unknown precision'}, but {self.kept} objects in "
                f"{self.directory} were answered in {self.precision}; give --fresh to begin anew."
            )
        self.precision = precision
        self.write("InProgress")

    def write(self, status: str) -> None:
        """Status as DescribeTransformJob names it."""
        content = {
            "TransformJobStatus": status,
            "failed": len(self.failed),
            "precision": self.precision,
            "request": dict(self.identity),
        }
        _write_whole(self.directory / STATE, json.dumps(content, indent=2, default=str) + "\n")

    def write_failures(self) -> None:
        """One line per failed object, in the order of the keys; no file where there are none."""
        lines = [json.dumps({"key": key, "reason": self.failed[key]}) + "\n" for key in sorted(self.failed)]
        if lines:
            _write_whole(self.directory / FAILED, "".join(lines))
        else:
            (self.directory / FAILED).unlink(missing_ok=True)


@contextmanager
def open_state(
    directory: Path,
    identity: Mapping[str, Any],
    objects: Sequence[InputObject],
    *,
    retry_failed: bool = False,
    fresh: bool = False,
) -> Iterator[JobState]:
    """Continue the job that was cut short or failed here, else begin anew; no second job may run here.

    Raises LocalError where another job was cut short here, or there is nothing to retry.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LocalError(
                f"A transform job is still running in {directory}; choose another output."
            ) from None
        identity = json.loads(json.dumps(identity, default=str))  # as it will read back
        previous = _read_state(directory)
        if _is_continued(previous, identity, directory, retry_failed=retry_failed, fresh=fresh):
            state = _continue(directory, identity, objects, retry_failed=retry_failed)
            state.precision = str((previous or {}).get("precision", ""))
        else:
            state = _begin(directory, identity, objects, is_ours=previous is not None)
        state.write("InProgress")
        yield state


def _is_continued(
    previous: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
    directory: Path,
    *,
    retry_failed: bool,
    fresh: bool,
) -> bool:
    """A completed job begins anew; so does a failed one whose model or request is another now."""
    if fresh:
        return False
    if previous is None or previous["TransformJobStatus"] == "Completed":
        if retry_failed:
            raise LocalError(f"There is no failed transform job in {directory} to retry.")
        return False
    then = previous["request"]
    changed = sorted(name for name in identity.keys() | then.keys() if identity.get(name) != then.get(name))
    if changed and (retry_failed or previous["TransformJobStatus"] == "InProgress"):
        raise LocalError(
            f"{directory} holds an unfinished transform job with another {', '.join(changed)}; "
            "give --fresh to begin anew, or another output."
        )
    return not changed


def _begin(
    directory: Path, identity: Mapping[str, Any], objects: Sequence[InputObject], *, is_ours: bool
) -> JobState:
    """No answer of an earlier job may stand for one of this job's."""
    outputs = directory.rglob("*.out") if is_ours else (directory / f"{item.key}.out" for item in objects)
    for output in outputs:
        output.unlink(missing_ok=True)
    (directory / FAILED).unlink(missing_ok=True)
    return JobState(directory=directory, identity=identity, pending=list(objects))


def _continue(
    directory: Path, identity: Mapping[str, Any], objects: Sequence[InputObject], *, retry_failed: bool
) -> JobState:
    finished = {item.key for item in objects if _is_finished(item, directory / f"{item.key}.out")}
    keys = {item.key for item in objects} - finished
    failed = {} if retry_failed else _read_failures(directory, keys)
    state = JobState(
        directory=directory,
        identity=identity,
        pending=[item for item in objects if item.key in keys and item.key not in failed],
        kept=len(finished),
        failed=failed,
    )
    state.write_failures()
    return state


def _is_finished(item: InputObject, output: Path) -> bool:
    """An answer older than its object is of another object; an empty one may be a power failure's."""
    try:
        answered = output.stat()
        return answered.st_size > 0 and answered.st_mtime_ns >= item.path.stat().st_mtime_ns
    except OSError:
        return False


def _read_state(directory: Path) -> dict[str, Any] | None:
    try:
        stored: dict[str, Any] = json.loads((directory / STATE).read_text(encoding="utf-8"))
        return stored if {"TransformJobStatus", "request"} <= stored.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _read_failures(directory: Path, keys: set[str]) -> dict[str, str]:
    """Of those keys; the last line of a killed job may be torn."""
    failed = {}
    path = directory / FAILED
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["key"] in keys:
            failed[entry["key"]] = entry["reason"]
    return failed


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
