"""README's measured facts: each has a results file that names the sources it measured, unchanged since."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import sources
from benchmarks.sources import SourcesError, hash_sources, read_stamp, stamp

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((benchmarks/results/[\w.-]+\.md)\)")


def facts() -> list[str]:
    """The rows of README's table of measured facts."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    after = readme[readme.index("\nMeasured on ") :]
    table = re.search(r"\n((?:\|.*\n)+)", after)
    assert table
    return [row for row in table[1].splitlines() if re.search(r"\w", row)]


def test_there_are_facts_and_each_has_a_results_file() -> None:
    assert len(facts()) >= 8
    assert [row for row in facts() if not LINK.search(row)] == []


@pytest.mark.parametrize("path", sorted({path for row in facts() for path in LINK.findall(row)}))
def test_what_a_fact_measured_has_not_changed_since(path: str) -> None:
    paths, measured = read_stamp(REPOSITORY / path)

    assert hash_sources(paths) == measured, (
        f"{' '.join(paths)} changed since {path} was measured: measure again and run "
        f"`python -m benchmarks.sources {path}`, or take the fact out of README"
    )


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a Python file and a recipe."""
    (tmp_path / "step.py").write_text('"""Doc."""\n\n\ndef step():\n    """Doc."""\n    return 1\n')
    (tmp_path / "recipe.toml").write_text("epochs = 1\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    monkeypatch.setattr(sources, "REPOSITORY", tmp_path)
    return tmp_path


def test_comments_and_docstrings_are_not_measured_but_code_and_recipes_are(repository: Path) -> None:
    before = hash_sources(["step.py", "recipe.toml"])

    (repository / "step.py").write_text('"""Other."""\ndef step():  # why\n    return 1\n')
    assert hash_sources(["step.py", "recipe.toml"]) == before
    (repository / "step.py").write_text("def step():\n    return 2\n")
    changed = hash_sources(["step.py", "recipe.toml"])
    (repository / "recipe.toml").write_text("epochs = 2\n")

    assert len({before, changed, hash_sources(["step.py", "recipe.toml"])}) == 3


def test_a_stamp_is_written_and_read_back(repository: Path) -> None:
    results = repository / "results.md"
    results.write_text("# Numbers\n\nMeasured sources: `step.py recipe.toml`, sha256 ``.\n")

    stamp(results)

    assert read_stamp(results) == (["step.py", "recipe.toml"], hash_sources(["step.py", "recipe.toml"]))


def test_a_path_that_is_gone_and_a_file_without_stamp_are_told(repository: Path) -> None:
    (repository / "results.md").write_text("# Numbers\n")

    with pytest.raises(SourcesError, match=r"gone\.py"):
        hash_sources(["gone.py"])
    with pytest.raises(SourcesError, match="does not end with: Measured sources"):
        read_stamp(repository / "results.md")
