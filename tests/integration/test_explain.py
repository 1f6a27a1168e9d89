"""`python -m training.explain` as a person calls it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TrainedShapes
from training.explain.__main__ import METHOD_NAMES
from training.explain.methods import METHODS


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.explain", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_folder_becomes_a_page_and_figures(trained_shapes: TrainedShapes, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    shutil.copytree(trained_shapes.data / "test", images)
    (images / "circle" / "broken.jpg").write_bytes(b"no picture")

    done = explain(trained_shapes.artifact, images, "--output", output, "--limit", 8)

    assert done.returncode == 0, done.stderr
    found = json.loads((output / "explanations.json").read_text())
    assert {row["method"] for row in found["methods"]} == set(METHODS)
    assert [row["path"] for row in found["unreadable"]] == ["circle/broken.jpg"]
    assert len(found["pictures"]) == 7
    assert all(picture["label"] == picture["path"].split("/")[0] for picture in found["pictures"])
    page = (output / "explanations.html").read_text()
    assert len(page) < 1_000_000
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("<img") == 5 * (7 + len({picture["predicted"] for picture in found["pictures"]}))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(["absent.tar.gz", "."], "absent.tar.gz does not exist", id="artifact"),
        pytest.param(["ARTIFACT", "absent"], "absent is not a folder", id="images"),
        pytest.param(["ARTIFACT", ".", "--methods", "lime"], "'lime' is no method; cam,", id="method"),
        pytest.param(["ARTIFACT", ".", "--limit", "0"], "'0' is not a number of pictures", id="limit"),
    ],
)
def test_mistake_is_said_in_a_sentence(
    trained_shapes: TrainedShapes, arguments: list[str], reason: str
) -> None:
    named = [str(trained_shapes.artifact) if argument == "ARTIFACT" else argument for argument in arguments]

    done = explain(*named)

    assert done.returncode == 2
    assert reason in done.stderr and "Traceback" not in done.stderr


def test_command_line_names_every_method() -> None:
    assert METHOD_NAMES == tuple(METHODS)
