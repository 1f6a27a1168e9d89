"""Training in real containers: as documented, two against one, hardly any /dev/shm, too little memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from artifact.bundle import read_bundle
from local.container import Container, removed_at_the_end
from local.platform import REPOSITORY, lay_out_training_job
from local.training_job import run_training_job
from training.recipe import read_recipe

pytestmark = pytest.mark.docker

TINY_SHM = ("--shm-size", "1m")
# Head only, and an epoch is a step: the history holds the loss of every step.
STEP_BY_STEP = {
    "freeze_backbone": "true",
    "image_size": "32",
    "resize": "36",
    "epochs": "50",
    "batch_size": "64",
    "warmup_epochs": "5",
    "learning_rate": "0.2",
    "precision": "fp32",
    "quantize": "off",
    "doctor": "off",
}


def _losses(output: Path) -> list[float]:
    history = json.loads((output / "output/data/metrics.json").read_text())["history"]
    return [entry["train_loss"] for entry in history]


def test_loss_curve_of_two_containers_is_that_of_one_with_hardly_any_shared_memory(
    training_image: str, shapes: Path, tmp_path: Path
) -> None:
    text = (REPOSITORY / "recipes/shapes.toml").read_text()
    losses = []
    for count in (1, 2):
        recipe = tmp_path / f"{count}.toml"
        recipe.write_text(text.replace("[training]\n", f"[training]\ninstance_count = {count}\n"))
        run_training_job(
            read_recipe(recipe).with_overrides([f"{name}={value}" for name, value in STEP_BY_STEP.items()]),
            data=shapes,
            output=tmp_path / str(count),
            image=training_image,
            options=TINY_SHM,
        )
        losses.append(_losses(tmp_path / str(count)))

    one, two = losses
    assert len(one) == 50
    assert two == pytest.approx(one, rel=1e-3)


def test_documented_docker_run_trains(training_image: str, shapes: Path, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/training-robustness.md").read_text()
    (commands,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)

    done = subprocess.run(
        ["bash", "-euc", commands.replace("--gpus all ", "")],
        cwd=tmp_path,
        env=os.environ | {"IMAGE": training_image, "IMAGES": str(shapes)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert read_bundle(tmp_path / "job/model").manifest.labels == ("circle", "square", "star", "triangle")


def test_container_without_enough_memory_says_so(training_image: str, shapes: Path, tmp_path: Path) -> None:
    hyperparameters = {"architecture": "cnn", "image_size": "512", "batch_size": "64", "doctor": "off"}
    lay_out_training_job(
        tmp_path,
        hyperparameters=hyperparameters,
        channels={"train": shapes / "train"},
        seen_as=Path("/opt/ml"),
    )
    container = Container(
        image=training_image,
        arguments=("train",),
        mounts={"/opt/ml": tmp_path, "/opt/ml/input/data/train:ro": shapes / "train"},
        options=("--memory", "900m", "--memory-swap", "900m"),
    )
    with removed_at_the_end(container):
        done = subprocess.run(container.command(), capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stderr[-2000:]
    failure = (tmp_path / "output/failure").read_text()
    assert failure.startswith("The training process was killed by the kernel (SIGKILL): the memory ran out.")
