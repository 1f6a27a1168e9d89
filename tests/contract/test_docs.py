"""What the documentation says is what the code does."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local.endpoint import start_endpoint
from local.platform import REPOSITORY
from serving.app import create_app
from serving.messages import Report
from serving.metrics import Metrics
from serving.pool import Pool
from serving.processes import start_child
from serving.settings import SETTINGS, read_settings
from tests.conftest import TrainedShapes
from tests.contract.test_recipe_reference import TABLES
from training.hyperparameters import ALIASES, Hyperparameters
from training.metrics import METRICS

README = (REPOSITORY / "README.md").read_text()
REFERENCE = (REPOSITORY / "docs/reference.md").read_text()
PAGES = sorted(
    [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "benchmarks").rglob("*.md"),
    ]
)
MAKE = re.compile(r"(?:^ {4}|`|; )make ([a-z-]+)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def hyperparameter_rows() -> list[str]:
    """A table row per hyperparameter, from its own definition."""
    rows = []
    for field in dataclasses.fields(Hyperparameters):
        limits = field.metadata
        allowed = (
            f"{limits['low']:g} to {limits['high']:g}"
            if "low" in limits
            else ", ".join(limits.get("choices", ()))
        )
        rows.append(f"| `{field.name}` | `{field.default}` | {allowed} | {limits['help']} |")
    return rows


def setting_rows() -> list[str]:
    """A table row per environment variable of the server."""
    return [
        f"| {', '.join(f'`{variable}`' for variable in setting.variables)} | `{setting.default}` | "
        f"{setting.meaning} |"
        for setting in SETTINGS.values()
    ]


def metric_rows() -> list[str]:
    """A table row per metric."""
    return [f"| `{name}` | {meaning} |" for name, meaning in METRICS.items()]


@pytest.mark.parametrize("row", [*hyperparameter_rows(), *setting_rows(), *metric_rows()])
def test_reference_has_the_row(row: str) -> None:
    assert row in REFERENCE


def documented(heading: str) -> list[str]:
    """The first cells of the tables under a heading of the reference, without their backquotes."""
    section = REFERENCE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("Environment variables of the server", [v for one in SETTINGS.values() for v in one.variables]),
        ("Hyperparameters", [field.name for field in dataclasses.fields(Hyperparameters)]),
        ("Metrics", list(METRICS)),
        (
            "Keys of a recipe that AWS reads",
            [f"[{t}] {key.name}" for t, kind in TABLES.items() for key in dataclasses.fields(kind)],
        ),
    ],
)
def test_nothing_is_documented_that_is_gone(heading: str, known: list[str]) -> None:
    assert [name for name in documented(heading) if name not in known] == []


def test_every_accepted_alias_is_documented() -> None:
    assert [alias for alias in ALIASES if f"`{alias}`" not in REFERENCE] == []


class NoEvents:
    """Nobody asks."""

    def ready(self, info: dict[str, Any]) -> None: ...

    def restarted(self) -> None: ...

    def queued(self, waiting: int) -> None: ...

    def answered(self, report: Report, *, queue_seconds: float) -> None: ...

    def watched(self, pictures: Sequence[tuple[int, ...]]) -> None: ...


def test_every_route_is_documented() -> None:
    settings = read_settings({})
    pool = Pool(
        [], start_child=start_child, refuse=sys.exit, events=NoEvents(), queue_limit=1, stuck_seconds=1.0
    )
    app = create_app(pool, settings, Metrics())

    routes = {rule.rule for rule in app.url_map.iter_rules()}
    assert [route for route in sorted(routes) if f"`{route}`" not in REFERENCE] == []
    section = REFERENCE.split("## Routes\n")[1].split("## ")[0]
    named = re.findall(r"^\| (`/[^|]*) \|", section, re.MULTILINE)
    assert {name for cell in named for name in re.findall(r"`([^`]+)`", cell)} == routes


def test_every_make_verb_is_documented_and_no_other_is_named() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    rows = [
        f"| `make {verb}` | {what} |" for verb, what in re.findall(r"^  make ([a-z-]+) +(.+)$", listed, re.M)
    ]
    section = REFERENCE.split("## Verbs\n")[1].split("\n## ")[0]

    assert [line for line in section.splitlines() if line.startswith("| `")] == rows
    named = {verb for page in PAGES for verb in MAKE.findall(page.read_text())}
    assert [verb for verb in sorted(named) if f"| `make {verb}` |" not in section] == []


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Files that exist, and headings of those that have them."""
    missing = []
    for target, _, heading in (link.partition("#") for link in LINK.findall(page.read_text())):
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (heading and heading not in anchors(path.read_text())):
            missing.append(f"{target}#{heading}")
    assert missing == []


def anchors(markdown: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_recipes_exist() -> None:
    named = set(re.findall(r"recipes/([a-z0-9-]+)\.toml", README))

    assert named and all((REPOSITORY / "recipes" / f"{name}.toml").is_file() for name in named)
    assert all(f"`{path.stem}`" in README for path in (REPOSITORY / "recipes").glob("*.toml"))


def test_readme_client_prints_a_label(
    trained_shapes: TrainedShapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copytree(REPOSITORY / "examples/images", tmp_path / "examples/images")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/shapes").symlink_to(trained_shapes.output)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()

    with start_endpoint(trained_shapes.artifact) as endpoint, contextlib.redirect_stdout(printed):
        exec(code.replace("127.0.0.1:8080", f"127.0.0.1:{endpoint.port}"), {})

    assert printed.getvalue().strip() in {"circle", "square", "star", "triangle"}


def test_platform_contract_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs/platform-contract.md").read_text()
    sources = {path.name: path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py")}

    for file, name in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text):
        assert file in sources, file
        assert not name or f"def {name}(" in sources[file], name


def test_no_file_of_the_repository_names_a_machine_path() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    forbidden = re.compile(rf"{os.sep}root{os.sep}|{os.sep}work{os.sep}|{os.sep}home{os.sep}\w")

    assert [
        name
        for name in tracked
        if (REPOSITORY / name).suffix not in (".jpg",)
        and forbidden.search((REPOSITORY / name).read_text(errors="replace"))
    ] == []
