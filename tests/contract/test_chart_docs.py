"""The chart's documentation: a row for each value, commands that render, notes that are right."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from local.platform import REPOSITORY
from tests.helm import (
    CHART,
    Helm,
    Manifest,
)


def value_rows() -> list[str]:
    """A table row per value of the chart, from values.yaml and its `# --` comments."""
    rows: list[str] = []
    path: list[str] = []
    meaning: list[str] = []
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            meaning = [text[5:]]
        elif text.startswith("#") and meaning:
            meaning.append(text[2:])
        elif found := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [*path[: len(found[1]) // 2], found[2]]
            default: Any = values
            for name in path:
                default = default[name]
            if meaning:
                rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {' '.join(meaning)} |")
            meaning = []
    return rows


def test_documentation_has_a_row_per_value() -> None:
    table = re.findall(r"^\| `.*\|$", (REPOSITORY / "docs/kubernetes.md").read_text(), re.MULTILINE)

    assert table == value_rows()


def test_every_value_is_explained() -> None:
    explained = [row.split("`")[1] for row in value_rows()]

    def unexplained(values: Manifest, prefix: str = "") -> Iterator[str]:
        for name, value in values.items():
            if prefix + name not in explained:
                yield from (
                    unexplained(value, f"{prefix}{name}.")
                    if isinstance(value, dict) and value
                    else [prefix + name]
                )

    assert list(unexplained(yaml.safe_load((CHART / "values.yaml").read_text()))) == []


def documented_commands() -> list[str]:
    """Every `helm install` and `helm upgrade` of docs/kubernetes.md, its continued lines joined."""
    text = (REPOSITORY / "docs/kubernetes.md").read_text().replace("\\\n", " ")
    return re.findall(r"(?:^    |`)(helm (?:install|upgrade) [^`\n]*)", text, re.MULTILINE)


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_renders(helm: Helm, command: str) -> None:
    command = command.replace("$REPOSITORY", "registry.example.org/kennel/serving-cpu")
    command = command.replace("container/chart", str(CHART)).replace("--reset-then-reuse-values ", "")
    _, _, *arguments = shlex.split(command)

    done = helm.run("template", *arguments, values={})

    assert done.returncode == 0, done.stderr


def test_documentation_installs_from_every_source() -> None:
    sources = set(re.findall(r"model\.source=(\w+)", " ".join(documented_commands())))

    assert sources == {"image", "pvc", "s3"}


def test_notes_teach_to_ask_the_release_that_was_installed(helm: Helm) -> None:
    arguments = ("install", "dogs", str(CHART), "--namespace", "pets", "--dry-run=client")

    done = helm.run(*arguments, values={"service.port": 81})

    assert done.returncode == 0, done.stderr
    assert "kubectl --namespace pets port-forward service/dogs-kennel 8080:81\n" in done.stdout
    assert (
        "curl --data-binary @picture.jpg" in done.stdout
        and "http://127.0.0.1:8080/invocations" in done.stdout
    )
