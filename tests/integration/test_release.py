"""A release in a small repository of its own: refused where something is missing, otherwise whole."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import pytest

from local.release import OUTPUT, ReleaseError, execute, plan_release

TODAY = date(2026, 11, 21)
CHANGELOG = "# Changelog\n\n## Unreleased\n\n- Faster.\n\n## 0.1.0 (2026-01-01)\n\n- First.\n"
SCRIPT = "#!/bin/sh\nmkdir -p build/scan && echo '{}' >build/scan/training.cdx.json && echo \"$@\"\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kennel"\nversion = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build_and_push.sh").write_text(SCRIPT)
    (tmp_path / "build_and_push.sh").chmod(0o755)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.email", "test@example.com")
    git(tmp_path, "config", "user.name", "Test")
    commit(tmp_path)
    return tmp_path


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository, capture_output=True, text=True, check=True
    ).stdout


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Change")


def test_release_is_committed_tagged_and_packed(repository: Path) -> None:
    execute(plan_release(repository, "0.2.0", TODAY), repository)

    assert 'version = "0.2.0"' in (repository / "pyproject.toml").read_text()
    assert (repository / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "## Unreleased\n", "## Unreleased\n\n## 0.2.0 (2026-11-21)\n"
    )
    assert git(repository, "tag", "--points-at", "HEAD") == "v0.2.0\n"
    assert git(repository, "status", "--porcelain") == ""
    files = {path.relative_to(repository / OUTPUT).as_posix() for path in (repository / OUTPUT).rglob("*.*")}
    assert files == {"kennel-0.2.0.tar.gz", "notes.md", "scan/training.cdx.json"}
    assert (repository / OUTPUT / "notes.md").read_text() == "- Faster.\n"


def test_plan_changes_nothing(repository: Path) -> None:
    release = plan_release(repository, "0.2.0", TODAY)

    assert release.commands[1] == ["git", "tag", "--annotate", "v0.2.0", "--message", "Kennel 0.2.0"]
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("0.0.9", "no version X.Y.Z from 0.1.0 on"),
        ("1.0", "no version X.Y.Z"),
        ("v1.0.0", "no version X.Y.Z"),
    ],
)
def test_version_that_does_not_follow_is_refused(repository: Path, version: str, sentence: str) -> None:
    with pytest.raises(ReleaseError, match=sentence):
        plan_release(repository, version, TODAY)


def test_same_version_twice_is_refused(repository: Path) -> None:
    git(repository, "tag", "v0.1.0")

    with pytest.raises(ReleaseError, match=r"There is a tag v0\.1\.0 already"):
        plan_release(repository, "0.1.0", TODAY)


def test_changed_tree_is_refused(repository: Path) -> None:
    (repository / "new.py").write_text("")

    with pytest.raises(ReleaseError, match="working tree has changes"):
        plan_release(repository, "0.2.0", TODAY)


def test_release_that_changes_nothing_for_anybody_is_refused(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGELOG.replace("- Faster.\n\n", ""))
    commit(repository)

    with pytest.raises(ReleaseError, match="tells nothing under '## Unreleased'"):
        plan_release(repository, "0.2.0", TODAY)


def test_failed_scan_ends_the_release_by_name(repository: Path) -> None:
    (repository / "build_and_push.sh").write_text("#!/bin/sh\nexit 3\n")
    commit(repository)

    with pytest.raises(ReleaseError, match=r"build_and_push\.sh build scan failed"):
        execute(plan_release(repository, "0.2.0", TODAY), repository)
