"""A release: version and changelog, a commit and a tag, then what goes with it in build/release.

    python -m local.release 0.2.0 [--dry-run]

Nothing leaves the machine. `make push` afterwards pushes the images under the version too: the tag is there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
UNRELEASED = "## Unreleased\n"
VERSION_LINE = re.compile(r'^version = "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)
OUTPUT = Path("build/release")


class ReleaseError(RuntimeError):
    """This cannot be released; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What will be written and run."""

    version: str
    pyproject: str
    changelog: str
    notes: str

    @property
    def commands(self) -> list[list[str]]:
        """In their order; the first two make the release, the rest what goes with it."""
        tag, name = f"v{self.version}", f"kennel-{self.version}"
        archive = f"--output={OUTPUT / name}.tar.gz"
        return [
            [
                "git",
                "commit",
                "--quiet",
                "--message",
                f"Release {self.version}",
                "pyproject.toml",
                "CHANGELOG.md",
            ],
            ["git", "tag", "--annotate", tag, "--message", f"Kennel {self.version}"],
            ["./build_and_push.sh", "build", "scan"],
            ["git", "archive", f"--prefix={name}/", archive, tag],
            ["cp", "-R", "build/scan/.", str(OUTPUT / "scan")],
        ]


def plan_release(repository: Path, version: str, today: date) -> Release:
    """Raises ReleaseError where the tree, the version or the changelog are not ready."""
    if _git(repository, "status", "--porcelain"):
        raise ReleaseError("The working tree has changes; commit or remove them (git status shows which).")
    if _git(repository, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"There is a tag v{version} already; choose a later version.")
    pyproject = (repository / "pyproject.toml").read_text(encoding="utf-8")
    present = VERSION_LINE.search(pyproject)
    if not present:
        raise ReleaseError('pyproject.toml names no version; add: version = "X.Y.Z"')
    wanted = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if not wanted or _numbers(wanted) < _numbers(present):
        raise ReleaseError(f"{version!r} is no version X.Y.Z from {'.'.join(present.groups())} on.")
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    head, found, rest = changelog.partition(UNRELEASED)
    notes, *older = re.split(r"(?=^## )", rest, maxsplit=1, flags=re.MULTILINE)
    if not found or not notes.strip():
        raise ReleaseError(f"CHANGELOG.md tells nothing under {UNRELEASED.strip()!r}; write what changes.")
    return Release(
        version=version,
        pyproject=VERSION_LINE.sub(f'version = "{version}"', pyproject, count=1),
        changelog=f"{head}{UNRELEASED}\n## {version} ({today.isoformat()})\n{notes}{''.join(older)}",
        notes=notes.strip() + "\n",
    )


def execute(release: Release, repository: Path) -> None:
    """Write and run it all. Raises ReleaseError for the first command that fails."""
    (repository / "pyproject.toml").write_text(release.pyproject, encoding="utf-8")
    (repository / "CHANGELOG.md").write_text(release.changelog, encoding="utf-8")
    (repository / OUTPUT).mkdir(parents=True, exist_ok=True)
    (repository / OUTPUT / "notes.md").write_text(release.notes, encoding="utf-8")
    for command in release.commands:
        print("+", *command, flush=True)
        if subprocess.run(command, cwd=repository, check=False).returncode:
            raise ReleaseError(
                f"{' '.join(command)} failed; what came before stays (git reset undoes a commit)."
            )


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _numbers(found: re.Match[str]) -> tuple[int, ...]:
    return tuple(map(int, found.groups()))


def main() -> None:
    """Parse, plan, and unless it is a dry run, execute."""
    parser = argparse.ArgumentParser(
        prog="python -m local.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("version", help="X.Y.Z")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the steps, change nothing"
    )
    arguments = parser.parse_args()
    try:
        release = plan_release(REPOSITORY, arguments.version, datetime.now(UTC).date())
        if not arguments.dry_run:
            return execute(release, REPOSITORY)
        print(
            f"would write version {release.version} to pyproject.toml and CHANGELOG.md, with these notes:\n"
        )
        print(release.notes)
        for command in release.commands:
            print("would run:", *command)
    except ReleaseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
