"""The mistakes that people make first, made for real: each is answered in a sentence that says what to do.

Two more are elsewhere: no credentials (aws/test_commands.py), a full disk (test_training_job.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from examples.shapes import draw_shapes
from tests.bundles import make_tiny_bundle
from tests.conftest import REPOSITORY, run_local


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that nothing is wrong with."""
    data = tmp_path_factory.mktemp("mistakes") / "data"
    draw_shapes(data, seed=1, images_per_class={"train": 2, "valid": 1, "test": 1})
    return data


def answer(*arguments: str) -> str:
    """Of `python -m local`, which must refuse in one sentence, without a traceback."""
    done = run_local(*arguments)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_engine_that_does_not_run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    train = ("train", "recipes/shapes.toml", "--data", str(pictures), "--output", str(tmp_path / "out"))

    with_command = answer(*train, "--docker") if shutil.which("docker") else "no.sock"
    monkeypatch.setenv("PATH", str(tmp_path))
    without = answer(*train, "--docker")

    assert "no.sock" in with_command
    assert "There is no `docker` command here; without ON=docker none is needed." in without


def test_port_that_is_taken(tmp_path: Path) -> None:
    model = make_tiny_bundle(tmp_path / "model", num_classes=2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        said = answer("serve", "--artifact", str(model), "--port", str(port))

    assert f"Port {port} cannot be listened on" in said and "make serve PORT=8081" in said


def test_images_without_a_split(pictures: Path, tmp_path: Path) -> None:
    data = pictures / "train"

    said = answer("train", "recipes/shapes.toml", "--data", str(data), "--output", str(tmp_path / "out"))

    assert f"{data} holds no train folder. Expected {data}/train/<label>/*.jpg" in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        pytest.param(["--set=architecture=resnet19"], "resnet18", id="unknown architecture"),
        pytest.param(["--set=learning_rat=0.1"], "learning_rate", id="unknown hyperparameter"),
        pytest.param(["--weights=absent.pth"], "There is no weights file absent.pth", id="missing weights"),
    ],
)
def test_name_that_is_not_known(pictures: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    output = ["--output", str(tmp_path / "out")]

    assert sentence in answer("train", "recipes/shapes.toml", "--data", str(pictures), *output, *more)


def test_recipe_key_that_is_not_known(pictures: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[training]\ninstance_typ = "ml.m5.large"\n')

    said = answer("train", str(recipe), "--data", str(pictures), "--output", str(tmp_path / "out"))

    assert "instance_typ" in said and "instance_type" in said.replace("instance_typ'", "")


def test_other_python(tmp_path: Path) -> None:
    """`make setup` in a fresh clone, with a Python that says it is another version."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    other = tmp_path / "python3.9"
    other.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'raise SystemExit(1)'\n")
    other.chmod(0o755)

    done = subprocess.run(
        ["make", "setup", f"PYTHON={other}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert f"Kennel needs Python 3.11, and PYTHON={other} is not." in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_gpu_image_without_a_gpu(tmp_path: Path) -> None:
    """It answers all the same, and its log says why it is slow."""
    program = "from serving.engine_torch import _find_device; print(_find_device())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}

    done = subprocess.run(
        [sys.executable, "-c", f"import logging; logging.basicConfig(); {program}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "cpu"
    assert "no GPU is visible: answering on the processor" in done.stderr
