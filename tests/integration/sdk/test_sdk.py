"""Kennel's images under a client nobody here wrote: the SageMaker Python SDK v3, with real containers.

Each script beside this file is the SDK as its users write it, and runs in the SDK's own environment.
KENNEL_TRAINING_IMAGE and KENNEL_SERVING_IMAGE name other images.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact.bundle import Bundle, read_bundle, read_test_predictions, unpack_artifact
from local.platform import REPOSITORY
from local.transform_job import run_transform_job
from tests.conftest import QUICK

pytestmark = pytest.mark.docker

SDK = REPOSITORY / ".venv-sdk" / "bin" / "python"
SCRIPTS = Path(__file__).parent
TRAINING_IMAGE = os.environ.get("KENNEL_TRAINING_IMAGE", "kennel/training:local")
SERVING_IMAGE = os.environ.get("KENNEL_SERVING_IMAGE", "kennel/serving-cpu:local")
HYPERPARAMETERS = QUICK | {
    "architecture": "cnn",
    "augmentation": "aerial",
    "batch_size": "16",
    "doctor": "off",
}
SETTINGS = [f"{name}={value}" for name, value in HYPERPARAMETERS.items()]
SCRIPT_SECONDS = 300  # a training container takes long to start on a busy machine
SAME = 1e-5  # of a log-probability: the same graph on the same machine


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for everything the SDK writes; the containers it leaves behind go with the last test."""
    if not SDK.exists():
        pytest.skip(f"the SDK's environment is not made ({SDK.parents[1].name}): run `make setup-sdk`")
    if shutil.which("docker") is None or _docker("version").returncode != 0:
        pytest.skip("no Docker engine answers `docker version`")
    for image in (TRAINING_IMAGE, SERVING_IMAGE):
        assert _docker("image", "inspect", image).returncode == 0, f"There is no image {image}: `make build`."
    folder = tmp_path_factory.mktemp("sdk")
    yield folder
    for container in _containers(folder, "all"):
        _docker("rm", "--force", container)


@pytest.fixture(scope="module")
def trained(workplace: Path, shapes: Path) -> Path:
    """What a training job on one host left."""
    output = workplace / "one-host"
    done = _run(workplace, "train.py", TRAINING_IMAGE, str(shapes), str(output), *SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def bundle(trained: Path, workplace: Path) -> Bundle:
    return _unpack(trained / "model.tar.gz", workplace / "bundle")


@pytest.fixture
def artifact(trained: Path, tmp_path: Path) -> Path:
    """In a folder of its own, which a server that is not root can read, for the SDK mounts it."""
    folder = tmp_path / "model"
    folder.mkdir(mode=0o755)
    return Path(shutil.copy(trained / "model.tar.gz", folder))


def test_training_job_completes_and_leaves_a_bundle(trained: Path, bundle: Bundle, shapes: Path) -> None:
    description = json.loads((trained / "description.json").read_text())

    assert description["TrainingJobStatus"] == "Completed"
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"file://{trained}/model.tar.gz"
    assert bundle.manifest.labels == tuple(sorted(path.name for path in (shapes / "train").iterdir()))
    assert len(_predicted(bundle)) == 24


def test_training_on_two_hosts_leaves_one_bundle(workplace: Path, shapes: Path) -> None:
    output = workplace / "two-hosts"

    done = _run(workplace, "train.py", TRAINING_IMAGE, str(shapes), str(output), "--instances=2", *SETTINGS)

    assert done.returncode == 0, done.stdout + done.stderr
    description = json.loads((output / "description.json").read_text())
    assert description["TrainingJobStatus"] == "Completed"
    assert _weights(done.stdout).keys() == {"0", "1"}
    assert len(set(_weights(done.stdout).values())) == 1
    assert len(_predicted(_unpack(output / "model.tar.gz", workplace / "bundle-two-hosts"))) == 24


def test_failing_job_raises_and_says_why(workplace: Path, shapes: Path) -> None:
    output = workplace / "failing"

    done = _run(workplace, "train.py", TRAINING_IMAGE, str(shapes), str(output), "learning_rat=0.1")

    assert done.returncode != 0
    assert "RuntimeError" in done.stderr
    assert "Unknown hyperparameter 'learning_rat'. Did you mean 'learning_rate'?" in done.stdout
    with tarfile.open(output / "output.tar.gz") as archive:
        assert "failure" in archive.getnames()


@pytest.mark.parametrize("instances", [1, 2])
def test_model_trainer_needs_no_source_code(workplace: Path, shapes: Path, instances: int) -> None:
    output = workplace / f"model-trainer-{instances}"

    done = _run(
        *(workplace, "model_trainer.py", TRAINING_IMAGE, str(shapes), str(output)),
        *(f"--instances={instances}", *SETTINGS),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(_weights(done.stdout)) == instances and len(set(_weights(done.stdout).values())) == 1
    archive = output / "compressed_artifacts" / "model.tar.gz"
    assert len(_predicted(_unpack(archive, workplace / f"bundle-model-trainer-{instances}"))) == 24


def test_endpoint_answers_what_the_trainer_recorded(
    artifact: Path, bundle: Bundle, shapes: Path, workplace: Path
) -> None:
    output = workplace / "endpoint"

    done = _run(
        *(workplace, "deploy.py", SERVING_IMAGE, str(artifact), str(shapes / "test"), str(output)),
        f"--port={_free_port()}",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    answered = json.loads((output / "answers.json").read_text())
    recorded = _predicted(bundle, _served_precision(done.stdout))
    assert answered.keys() == recorded.keys() and len(recorded) == 24
    for path, (label, log_probability) in recorded.items():
        assert answered[path]["label"] == label
        assert math.log(answered[path]["probability"]) == pytest.approx(log_probability, abs=SAME)
    assert _containers(output, "running") == []


def test_batch_transform_writes_one_answer_per_image(
    artifact: Path, bundle: Bundle, shapes: Path, workplace: Path
) -> None:
    images, output = workplace / "images", workplace / "transform"
    images.mkdir()
    for path in (shapes / "test").glob("*/*"):
        shutil.copy(path, images / _flat(path.relative_to(shapes / "test").as_posix()))

    done = _run(
        *(workplace, "transform.py", SERVING_IMAGE, str(artifact), str(images), str(output)),
        f"--port={_free_port()}",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((output / "description.json").read_text())["TransformJobStatus"] == "Completed"
    recorded = _predicted(bundle, _served_precision(done.stdout))
    assert len(recorded) == 24
    assert sorted(path.name for path in (output / "answers").iterdir()) == sorted(
        f"{_flat(name)}.out" for name in recorded
    )
    for name, (label, log_probability) in recorded.items():
        (log_probabilities,) = json.loads((output / "answers" / f"{_flat(name)}.out").read_text())
        best = max(log_probabilities)
        assert bundle.manifest.labels[log_probabilities.index(best)] == label
        assert best == pytest.approx(log_probability, abs=SAME)


def test_local_transform_job_writes_the_sdks_files(
    artifact: Path, shapes: Path, workplace: Path, tmp_path: Path
) -> None:
    images, output = tmp_path / "images", tmp_path / "sdk"
    images.mkdir()
    for path in (shapes / "test").glob("*/*"):
        shutil.copy(path, images / _flat(path.relative_to(shapes / "test").as_posix()))
    done = _run(
        *(workplace, "transform.py", SERVING_IMAGE, str(artifact), str(images), str(output)),
        f"--port={_free_port()}",
    )
    assert done.returncode == 0, done.stdout + done.stderr

    run_transform_job(
        artifact,
        input_dir=images,
        output_dir=tmp_path / "own",
        image=SERVING_IMAGE,
        fields={
            "TransformOutput": {"Accept": "application/json"},
            "BatchStrategy": "SingleRecord",
            "Environment": {"KENNEL_WORKERS": "1"},
        },
    )

    expected = {path.name: path.read_bytes() for path in (output / "answers").iterdir()}
    assert len(expected) == 24
    assert {path.name: path.read_bytes() for path in (tmp_path / "own").glob("*.out")} == expected


def _run(workplace: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script under the SDK: with a region, without credentials or reports to AWS."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(SCRIPTS / "telemetry-off.yaml"),
    }
    return subprocess.run(
        [str(SDK), str(SCRIPTS / script), *arguments],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_SECONDS,
    )


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def _containers(folder: Path, which: str) -> list[str]:
    """Ids of those that compose made from files under `folder`: `running`, or `all`, also ended ones."""
    label = "com.docker.compose.project.working_dir"
    options = ["--all"] if which == "all" else []
    listed = _docker(
        "ps", *options, "--filter", f"label={label}", "--format", f'{{{{.ID}}}} {{{{.Label "{label}"}}}}'
    )
    pairs = [line.split(" ", 1) for line in listed.stdout.splitlines()]
    return [container for container, directory in pairs if Path(directory).is_relative_to(folder)]


def _unpack(archive: Path, folder: Path) -> Bundle:
    unpack_artifact(archive, folder)
    return read_bundle(folder)


def _predicted(bundle: Bundle, precision: str = "fp32") -> dict[str, tuple[str, float]]:
    """Path -> label and log-probability, as the trainer recorded them."""
    return {
        row.path: (row.predicted, row.log_probability)
        for row in read_test_predictions(bundle.directory)
        if row.precision == precision
    }


def _served_precision(log: str) -> str:
    """The one the server chose, by its own word."""
    found = re.search(r"event=ready precision=(\w+)", log)  # text: the SDK gives its containers a terminal
    assert found, log
    return found[1]


def _weights(log: str) -> dict[str, str]:
    """Rank -> the hash of the weights it ended with."""
    return dict(re.findall(r"rank=(\d+) weights=(\w+)", log))


def _flat(path: str) -> str:
    return path.replace("/", "-")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
