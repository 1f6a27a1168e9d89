"""The images as built: what is in them, how small they are, how they start, stop and reproduce."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifact.bundle import read_bundle, read_test_predictions
from local.container import Container, docker, removed_at_the_end
from local.platform import REPOSITORY
from tests.conftest import QUICK, TrainedShapes, run_local

pytestmark = pytest.mark.docker

BASE_IMAGE = "python:3.11-slim-bookworm"
SERVING_LIMIT_BYTES = 240e6  # beyond the base
SIZES = "{{.Size}} {{.CreatedBy}}"
LEAVE_AN_ORPHAN = """
import os
if os.fork() == 0:
    os.fork()  # whose parent ends first
    os._exit(0)
os.wait()
"""
COUNT_ZOMBIES = """
import pathlib
print(sum(") Z " in stat.read_text() for stat in pathlib.Path("/proc").glob("[0-9]*/stat")))
"""
OWN_LIMIT_BYTES = 5e6  # of the training image beyond base and wheels


def _inspect(image: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", image))
    return found[0]


def _inspect_state(container: Container) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", container.name))[0]["State"]
    return state


def _run(image: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", *options, image, *arguments)


def _python(image: str, code: str) -> str:
    return _run(image, "-c", code, options=("--entrypoint", "python")).strip()


def test_serving_image_adds_less_than_its_limit_to_the_base(serving_image: str) -> None:
    added = _inspect(serving_image)["Size"] - _inspect(BASE_IMAGE)["Size"]

    assert 0 < added <= SERVING_LIMIT_BYTES


def test_code_is_a_small_layer_of_its_own(training_image: str, serving_image: str) -> None:
    for image in (training_image, serving_image):
        history = docker(
            "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image
        )
        (size,) = [line.split()[0] for line in history.splitlines() if "COPY /code/ /" in line]
        assert 0 < int(size) <= OWN_LIMIT_BYTES


def test_labels_claim_what_is_true(training_image: str, serving_image: str) -> None:
    serving, training = _inspect(serving_image)["Config"], _inspect(training_image)["Config"]

    assert serving["Labels"]["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert "com.amazonaws.sagemaker.capabilities.multi-models" not in serving["Labels"]  # no such routes
    assert serving["Labels"]["org.opencontainers.image.revision"] not in ("", "unknown")
    assert (serving["Entrypoint"], training["Entrypoint"]) == (["serve"], ["train"])
    assert serving["User"] == "10001" and not training["User"]


def test_serving_image_has_no_torch_and_nothing_of_training(serving_image: str) -> None:
    found = _python(
        serving_image,
        "import importlib.util as u; print([n for n in "
        "('torch', 'torchvision', 'training', 'scoring', 'local', 'openvino_telemetry') if u.find_spec(n)])",
    )

    assert found == "[]"


def test_training_image_has_torch_of_the_lock_and_no_driver(training_image: str) -> None:
    version, drivers = _python(
        training_image,
        "import torch, pathlib; print(torch.__version__.split('+')[0]); "
        "print(sorted(map(str, pathlib.Path('/').rglob('libcuda.so*'))))",
    ).splitlines()

    assert f"torch=={version} " in (REPOSITORY / "requirements/training.txt").read_text()
    assert drivers == "[]"


def test_pruned_openvino_has_the_processor_alone(serving_image: str) -> None:
    assert _python(serving_image, "import openvino; print(openvino.Core().available_devices)") == "['CPU']"


@pytest.mark.parametrize("dockerfile", ["training", "serving"])
def test_nothing_but_what_is_named_reaches_the_build(dockerfile: str) -> None:
    allowed = (REPOSITORY / f"container/{dockerfile}.Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in allowed if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert all(line.startswith("!") or line == "**/__pycache__" for line in rules[1:])
    assert all((REPOSITORY / line[1:]).exists() for line in rules if line.startswith("!"))


@pytest.mark.parametrize("dockerfile", ["training", "serving"])
def test_two_clones_of_a_commit_give_the_same_code_layer(
    dockerfile: str, engine: None, tmp_path: Path
) -> None:
    layers = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        clone = tmp_path / name
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True, umask=umask)
        (clone / "artifact" / "__pycache__").mkdir()
        (clone / "artifact" / "__pycache__" / "junk.pyc").write_text(name)
        tag = f"kennel-test/{dockerfile}-{name}:{os.getpid()}"
        # Only the layer, on nothing: the stages before it take minutes and are not ours.
        lines = (clone / f"container/{dockerfile}.Dockerfile").read_text()
        lines += "\nFROM scratch AS only-code\nCOPY --from=code /code/ /\n"
        (clone / f"container/{dockerfile}.Dockerfile").write_text(lines)
        build = ["buildx", "build", "--load", "--provenance=false", "--no-cache", "--target", "only-code"]
        docker(*build, "--tag", tag, "--file", str(clone / f"container/{dockerfile}.Dockerfile"), str(clone))
        layers.append(_inspect(tag)["RootFS"]["Layers"])
        docker("rmi", tag)

    assert layers[0] == layers[1] and len(layers[0]) == 1


def test_training_and_transform_in_containers_equal_each_other(
    training_image: str, serving_image: str, shapes: Path, tmp_path: Path
) -> None:
    """The same verbs with --docker: trained in one image, served by the other, compared image by image."""
    settings = [f"--set={name}={value}" for name, value in QUICK.items()]
    train = (
        "train",
        "recipes/shapes.toml",
        "--data",
        str(shapes),
        "--output",
        str(tmp_path / "run"),
        *settings,
    )
    transform = (
        "transform",
        "--artifact",
        str(tmp_path / "run/model.tar.gz"),
        "--input",
        str(shapes / "test"),
    )

    run_local(*train, "--docker", "--image", training_image, check=True)
    output = str(tmp_path / "transform")
    run_local(*transform, "--output", output, "--docker", "--image", serving_image, check=True)

    comparison = json.loads((tmp_path / "transform/scores.json").read_text())["comparison"]
    assert comparison["items_compared"] == len(list((shapes / "test").glob("*/*"))) > 0
    assert comparison["items_same_prediction"] == comparison["items_compared"]
    assert comparison["largest_log_probability_difference"] <= 1e-3


def test_two_containers_train_one_network(training_image: str, shapes: Path, tmp_path: Path) -> None:
    recipe = (REPOSITORY / "recipes/shapes.toml").read_text()
    assert "[training]" in recipe
    (tmp_path / "two.toml").write_text(recipe.replace("[training]", "[training]\ninstance_count = 2"))
    settings = [f"--set={name}={value}" for name, value in (QUICK | {"epochs": "1"}).items()]

    done = run_local(
        *("train", str(tmp_path / "two.toml"), "--data", str(shapes), "--output", str(tmp_path / "run")),
        *(*settings, "--docker", "--image", training_image),
    )

    assert done.returncode == 0, done.stderr[-2000:]
    weights = {line.split("weights=")[1] for line in done.stderr.splitlines() if " weights=" in line}
    assert len(weights) == 1  # both ranks say the checksum of theirs
    assert "rank=0 weights=" in done.stderr and "rank=1 weights=" in done.stderr
    assert read_test_predictions(tmp_path / "run/model")


@pytest.fixture
def long_training(training_image: str, shapes: Path, tmp_path: Path) -> Iterator[Container]:
    """A job of many epochs in the background, past its first epoch."""
    settings = [f"--set={name}={value}" for name, value in (QUICK | {"epochs": "1"}).items()]
    run_local(  # lays the job out, and proves that it runs
        *("train", "recipes/shapes.toml", "--data", str(shapes), "--output", str(tmp_path / "job")),
        *(*settings, "--docker", "--image", training_image),
        check=True,
    )
    hyperparameters = tmp_path / "job/input/config/hyperparameters.json"
    hyperparameters.write_text(json.dumps(json.loads(hyperparameters.read_text()) | {"epochs": "10000"}))
    container = Container(
        image=training_image,
        arguments=("train",),
        mounts={"/opt/ml": tmp_path / "job"}
        | {f"/opt/ml/input/data/{name}:ro": shapes / name for name in ("train", "valid", "test")},
        options=("--detach",),
        remove=False,
    )
    with removed_at_the_end(container):
        docker(*container.command()[1:])
        deadline = time.monotonic() + 120
        while "metric validation_loss" not in docker("logs", container.name):
            assert _inspect_state(container)["Running"], docker("logs", container.name)
            assert time.monotonic() < deadline, "no epoch ended in two minutes"
            time.sleep(0.5)
        yield container


def test_docker_stop_ends_training_in_good_order(long_training: Container, tmp_path: Path) -> None:
    docker("stop", "--time", "120", long_training.name)

    state = _inspect_state(long_training)
    assert state["ExitCode"] == 0 and not state["OOMKilled"]
    assert read_bundle(tmp_path / "job/model").manifest.labels == ("circle", "square", "star", "triangle")
    assert list((tmp_path / "job/checkpoints").glob("*.pt"))


def test_orphans_in_the_training_container_are_reaped(long_training: Container) -> None:
    docker("exec", long_training.name, "python", "-c", LEAVE_AN_ORPHAN)

    assert docker("exec", long_training.name, "cat", "/proc/1/comm").strip() == "tini"
    assert docker("exec", long_training.name, "python", "-c", COUNT_ZOMBIES).strip() == "0"


def test_container_entrypoint_may_be_overridden(training_image: str) -> None:
    """As AlgorithmSpecification.ContainerEntrypoint and ContainerArguments do."""
    done = _run(training_image, "-m", "training", "--help", options=("--entrypoint", "python"))

    assert "usage: python -m training" in done


def test_serve_refuses_arguments_it_does_not_know(serving_image: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", serving_image, "train"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "usage: serve" in done.stderr and "train" in done.stderr


def test_model_that_cannot_be_read_ends_the_container_with_one_sentence(
    serving_image: str, trained_shapes: TrainedShapes
) -> None:
    broken = f"{trained_shapes.output / 'output'}:/opt/ml/model:ro"  # a folder without manifest.json
    done = subprocess.run(
        ["docker", "run", "--rm", "--volume", broken, serving_image],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Kennel cannot start: /opt/ml/model/manifest.json is missing" in done.stderr
    assert "Traceback" not in done.stderr
