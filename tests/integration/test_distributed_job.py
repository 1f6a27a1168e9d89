"""Several hosts, as processes on loopback addresses: same weights, stopped, killed, resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from artifact.bundle import read_bundle
from local.platform import REPOSITORY, free_port, lay_out_training_job
from local.training_job import host_prefixes
from tests.conftest import run_local

HYPERPARAMETERS = {
    "architecture": "cnn",
    "image_size": "32",
    "resize": "36",
    "augmentation": "aerial",
    "epochs": "2",
    "batch_size": "8",
    "learning_rate": "0.02",
    "precision": "fp32",
    "checkpoint_steps": "3",
    "doctor": "off",
    "quantize": "off",
}
# Batch norm stays as it is and the head alone learns: what is left of the difference is the order of sums.
# An epoch is one step of a batch that two cannot share evenly, so the history has the loss of every step.
WITHOUT_BATCH_NORM = {
    "freeze_backbone": "true",
    "epochs": "50",
    "batch_size": "63",
    "checkpoint_steps": "0",
    "warmup_epochs": "5",
    "learning_rate": "0.2",
}


def _start(
    output: Path,
    shapes: Path,
    changes: Mapping[str, str] | None = None,
    *,
    hosts: int = 2,
    processes: int = 1,
    shards: Sequence[Path] = (),
) -> list[subprocess.Popen[str]]:
    """A job's hosts, a process each; of `shards` each gets one as its training images."""
    prefixes = host_prefixes(output, hosts)
    for number, (host, prefix) in enumerate(prefixes.items()):
        channels = {split: shapes / split for split in ("train", "valid")}
        lay_out_training_job(
            prefix,
            hyperparameters=HYPERPARAMETERS | dict(changes or {}),
            channels=channels | ({"train": shards[number]} if shards else {}),
            hosts=tuple(prefixes),
            current_host=host,
            sharded=["train"] if shards else [],
        )
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MASTER_PORT": str(free_port()),
        "KENNEL_PROCESSES_PER_HOST": str(processes),
    }
    return [
        subprocess.Popen(
            [str(REPOSITORY / "container" / "train")],
            env=environment | {"KENNEL_PREFIX": str(prefix)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for prefix in prefixes.values()
    ]


def _finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """What each printed on stdout and stderr, once all have ended well."""
    printed = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), (
        printed[-1][1] + printed[0][1]
    )
    return printed


def _weights(printed: Sequence[tuple[str, str]]) -> list[str]:
    """The checksum every rank logged."""
    return [line for _, stderr in printed for line in re.findall(r"weights=([0-9a-f]{16})$", stderr, re.M)]


def _wait_for_checkpoint(output: Path, after_step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(int(path.stem[5:]) >= after_step for path in (output / "checkpoints").glob("step-*.pt")):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {after_step} within 60 s")


@pytest.fixture(scope="module")
def uninterrupted(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    """A job of a recipe with two instances that ran through, and what its hosts printed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = folder / "two.toml"
    text = (REPOSITORY / "recipes/shapes.toml").read_text()
    recipe.write_text(text.replace("[training]\n", "[training]\ninstance_count = 2\n"))
    settings = [f"--set={name}={value}" for name, value in HYPERPARAMETERS.items()]
    output = folder / "out"
    done = run_local("train", str(recipe), "--data", str(shapes), "--output", str(output), *settings)
    assert done.returncode == 0, done.stderr
    return output, (done.stdout, done.stderr)


def test_two_hosts_end_with_the_same_weights_and_one_artifact(
    uninterrupted: tuple[Path, tuple[str, str]],
) -> None:
    output, printed = uninterrupted

    checksums = _weights([printed])

    assert len(checksums) == 2 and len(set(checksums)) == 1
    assert read_bundle(output / "model").manifest.data["train"]["images"] == 64
    assert (output / "model.tar.gz").is_file() and not (output / "checkpoints").exists()
    assert len(re.findall("^metric validation_loss=", printed[0], re.M)) == 2  # epochs: one host prints them
    second = output / "hosts/127.0.0.2"
    assert [
        path for name in ("model", "output/data", "checkpoints") for path in (second / name).iterdir()
    ] == []


def test_loss_curve_of_two_hosts_is_that_of_one_with_the_same_batch(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "data")
    next((tmp_path / "data/train/star").iterdir()).unlink()
    outputs = {hosts: tmp_path / str(hosts) for hosts in (1, 2)}

    for hosts, output in outputs.items():
        _finish(_start(output, tmp_path / "data", WITHOUT_BATCH_NORM, hosts=hosts))

    one, two = (
        json.loads((output / "output/data/metrics.json").read_text())["history"]
        for output in outputs.values()
    )
    curve = [entry["train_loss"] for entry in one]
    assert len(curve) == 50 and curve[-1] < 0.99 * curve[0]
    assert [entry["train_loss"] for entry in two] == pytest.approx(curve, rel=1e-3)
    assert [entry["validation_loss"] for entry in two] == pytest.approx(
        [entry["validation_loss"] for entry in one], rel=1e-3
    )


def test_hosts_with_other_classes_each_train_like_one_with_all_images(shapes: Path, tmp_path: Path) -> None:
    """Dealt out by class, in the labels' order, so that the images' numbers are those of the whole split."""
    shards = [tmp_path / "data" / host for host in ("first", "second")]
    for label, shard in zip(("circle", "square", "star", "triangle"), sorted(shards * 2), strict=True):
        shutil.copytree(shapes / "train" / label, shard / label)
    steps = WITHOUT_BATCH_NORM | {"batch_size": "64", "epochs": "20"}  # a batch is all images

    _finish(_start(tmp_path / "one", shapes, steps, hosts=1))
    printed = _finish(_start(tmp_path / "two", shapes, steps, shards=shards))

    one, two = (
        json.loads((tmp_path / name / "output/data/metrics.json").read_text())["history"]
        for name in ("one", "two")
    )
    assert len(set(_weights(printed))) == 1
    assert [e["train_loss"] for e in two] == pytest.approx([e["train_loss"] for e in one], rel=1e-3)
    assert read_bundle(tmp_path / "two/model").manifest.data["train"]["images"] == 64


def test_recipe_deals_the_images_out_to_two_instances(shapes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "sharded.toml"
    two = '[training]\ninstance_count = 2\ndistribution = "ShardedByS3Key"\n'
    recipe.write_text((REPOSITORY / "recipes/shapes.toml").read_text().replace("[training]\n", two))
    settings = [f"--set={name}={value}" for name, value in (HYPERPARAMETERS | {"epochs": "1"}).items()]
    output = tmp_path / "out"

    done = run_local("train", str(recipe), "--data", str(shapes), "--output", str(output), *settings)

    assert done.returncode == 0, done.stderr
    assert len(set(_weights([(done.stdout, done.stderr)]))) == 1
    parts = [set(path.name for path in part.rglob("*.jpg")) for part in (output / "shards").iterdir()]
    assert [len(part) for part in parts] == [32, 32] and not parts[0] & parts[1]
    manifest = read_bundle(output / "model").manifest
    assert manifest.data["train"]["images"] == 64
    assert manifest.labels == ("circle", "square", "star", "triangle")


def test_processes_of_one_host_train_like_as_many_hosts(
    uninterrupted: tuple[Path, tuple[str, str]], shapes: Path, tmp_path: Path
) -> None:
    printed = _finish(_start(tmp_path, shapes, hosts=1, processes=2))

    assert _weights(printed) == _weights([uninterrupted[1]])
    assert read_bundle(tmp_path / "model").manifest.architecture == "cnn"


def test_killed_host_fails_the_other_by_name_and_both_resume(
    uninterrupted: tuple[Path, tuple[str, str]], shapes: Path, tmp_path: Path
) -> None:
    first, second = _start(tmp_path, shapes)
    _wait_for_checkpoint(tmp_path, 3)
    second.kill()
    killed = time.monotonic()
    _, stderr = first.communicate(timeout=60)
    seconds = time.monotonic() - killed
    second.communicate()
    failure = (tmp_path / "output/failure").read_text()

    printed = _finish(_start(tmp_path, shapes))

    assert first.returncode == 1, stderr
    assert seconds < 60
    assert re.fullmatch(r"host 127\.0\.0\.2 is gone: no sign of life for \d+ seconds", failure)
    assert "resumed epoch=" in printed[0][1]
    assert _weights(printed) == _weights([uninterrupted[1]])


@pytest.mark.parametrize("index", [0, 1], ids=["first host", "second host"])
def test_killed_process_of_one_host_is_started_again_and_all_go_on(
    uninterrupted: tuple[Path, tuple[str, str]], shapes: Path, tmp_path: Path, index: int
) -> None:
    processes = _start(tmp_path, shapes, {"restarts": "1"})
    _wait_for_checkpoint(tmp_path, 3)

    (trainer,) = psutil.Process(processes[index].pid).children()
    trainer.kill()
    printed = _finish(processes)

    assert "Starting again: 1 of 1" in printed[0][1] and "Starting again: 1 of 1" in printed[1][1]
    assert "resumed epoch=" in printed[0][1]
    assert _weights(printed) == _weights([uninterrupted[1]])
    assert not (tmp_path / "output/failure").exists()


def test_killed_first_host_fails_the_other_by_name(shapes: Path, tmp_path: Path) -> None:
    first, second = _start(tmp_path, shapes, {"epochs": "500"})
    _wait_for_checkpoint(tmp_path, 3)

    first.kill()
    second.communicate(timeout=60)

    assert second.returncode == 1
    assert "host 127.0.0.1 is gone" in (tmp_path / "hosts/127.0.0.2/output/failure").read_text()
    first.communicate()


def test_sigterm_to_one_host_stops_both_with_an_artifact(shapes: Path, tmp_path: Path) -> None:
    processes = _start(tmp_path, shapes, {"epochs": "500"})
    _wait_for_checkpoint(tmp_path, 6)

    processes[1].send_signal(signal.SIGTERM)
    printed = _finish(processes)

    assert len(set(_weights(printed))) == 1
    assert "stopped=true" in printed[0][1]
    assert read_bundle(tmp_path / "model").manifest.architecture == "cnn"


def test_hosts_with_different_images_are_refused_on_both(shapes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shapes / "train", other)
    next((other / "star").iterdir()).unlink()
    processes = _start(tmp_path / "job", shapes)
    channel = tmp_path / "job/hosts/127.0.0.2/input/data/train"
    channel.unlink()
    channel.symlink_to(other)

    for process in processes:
        process.communicate(timeout=60)

    first, second = (
        (tmp_path / "job" / prefix / "output/failure").read_text() for prefix in ("", "hosts/127.0.0.2")
    )
    assert [process.returncode for process in processes] == [1, 1]
    assert second.startswith("Host 127.0.0.2 differs from 127.0.0.1 in training data")
    assert first == f"host 127.0.0.2 failed: {second}"
