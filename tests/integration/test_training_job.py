"""`python -m training` as a process under SageMaker's contract: stopped and failing.

Killed it is in test_chaos_training.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from artifact.bundle import read_bundle
from local.platform import REPOSITORY, lay_out_training_job
from tests.small_disk import disk_of, fill
from training.metrics import METRICS, metric_regex

HYPERPARAMETERS = {
    "architecture": "cnn",
    "image_size": "32",
    "resize": "36",
    "epochs": "4",
    "batch-size": "8",
    "lr": "0.02",
    "precision": "fp32",
    "checkpoint_steps": "3",
    "_tuning_objective_metric": "validation_loss",
}


def _start(prefix: Path, shapes: Path, **changes: str) -> subprocess.Popen[str]:
    """The job as a process; one thread, so that other load on the machine cannot split sums differently."""
    channels = {split: shapes / split for split in ("train", "valid", "test")}
    lay_out_training_job(prefix, hyperparameters=HYPERPARAMETERS | changes, channels=channels)
    return subprocess.Popen(
        [str(REPOSITORY / "container" / "train")],
        env=os.environ
        | {
            "KENNEL_PREFIX": str(prefix),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_checkpoint(prefix: Path, after_step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        steps = [int(path.stem.removeprefix("step-")) for path in (prefix / "checkpoints").glob("step-*.pt")]
        if steps and max(steps) >= after_step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {after_step} within 60 s")


@pytest.fixture(scope="module")
def uninterrupted(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job that ran through, and what it printed on stdout."""
    prefix = tmp_path_factory.mktemp("uninterrupted")
    process = _start(prefix, shapes)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return prefix, stdout


def test_printed_metrics_match_the_regexes_sent_to_sagemaker(uninterrupted: tuple[Path, str]) -> None:
    _, stdout = uninterrupted

    found = {name: re.findall(metric_regex(name), stdout) for name in METRICS}

    assert all(found.values()), [name for name, values in found.items() if not values]
    assert len(found["validation_top1_accuracy"]) == 4
    assert len(found["test_top1_accuracy"]) == 1


def test_finished_job_left_artifact_and_report(uninterrupted: tuple[Path, str]) -> None:
    prefix, _ = uninterrupted

    manifest = read_bundle(prefix / "model").manifest

    assert manifest.labels == ("circle", "square", "star", "triangle")
    assert manifest.hyperparameters["learning_rate"] == 0.02
    assert manifest.data["train"]["images"] == 64
    assert {"valid", "test"} == set(manifest.metrics)
    table = json.loads((prefix / "output/data/metrics.json").read_text())["precision_table"]
    assert table == [asdict(row) for row in manifest.precision_table]
    assert next(row["precision"] for row in table if row["latency_ms"]) == "fp32" and len(table) == 3
    assert set(manifest.precisions) == {row["precision"] for row in table if row["kept"]}
    page = (prefix / "output/data/report.html").read_text()
    assert "<html" in page and "<h2>Precisions</h2>" in page
    assert 'href="debugging/report.html"' in page
    assert "ended as planned" in (prefix / "output/data/debugging/report.html").read_text()
    assert not (prefix / "output/failure").exists()


def test_sigterm_leaves_checkpoint_and_artifact_and_exits_zero(shapes: Path, tmp_path: Path) -> None:
    process = _start(tmp_path, shapes, epochs="500")
    _wait_for_checkpoint(tmp_path, 9)
    started = time.monotonic()

    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr
    assert time.monotonic() - started < 60  # SageMaker allows 120 s
    manifest = read_bundle(tmp_path / "model").manifest
    assert "test" not in manifest.metrics
    assert list(manifest.precisions) == ["fp32"]
    assert {row.reason for row in manifest.precision_table[1:]} == {"the job was stopped"}
    assert list((tmp_path / "checkpoints").glob("step-*.pt"))


def test_sigterm_before_the_first_step_ends_at_once(shapes: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for label in ("circle", "square", "star", "triangle"):
        (many / label).mkdir(parents=True)
        picture = next((shapes / "train" / label).iterdir())
        for index in range(2000):
            (many / label / f"{index}.jpg").symlink_to(picture)
    process = _start(tmp_path / "job", shapes, doctor="off", image_size="512", resize="512")
    channel = tmp_path / "job/input/data/train"
    channel.unlink()
    channel.symlink_to(many)
    assert process.stderr is not None
    for line in process.stderr:
        if "decode train" in line:
            break

    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert time.monotonic() - started < 10
    assert not (tmp_path / "job/model/manifest.json").exists()


def test_disk_that_is_full_at_the_end_is_named_and_leaves_no_half_artifact(
    shapes: Path, tmp_path: Path
) -> None:
    with disk_of(30_000, tmp_path / "disk"):
        prefix = tmp_path / "disk/job"
        process = _start(prefix, shapes, epochs="6")
        _wait_for_checkpoint(prefix, 3)
        fill(tmp_path / "disk/ballast")
        _, stderr = process.communicate(timeout=300)

        assert process.returncode == 1, stderr
        assert (prefix / "output/failure").read_text().startswith("No space left on the disk")
        assert list((prefix / "model").iterdir()) == []
        assert list((prefix / "checkpoints").glob("step-*.pt"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"epochz": "3"}, "Unknown hyperparameter 'epochz'. Did you mean 'epochs'?", id="name"),
        pytest.param({"epochs": "none"}, "epochs='none' is not a whole number", id="value"),
        pytest.param({"architecture": "resnet19"}, "Unknown architecture 'resnet19'.", id="architecture"),
        pytest.param(
            {"architecture": "cnn", "pretrained": "true"}, "no ImageNet weights for cnn", id="weights"
        ),
    ],
)
def test_failed_job_says_why_in_the_failure_file_and_exits_non_zero(
    shapes: Path, tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    process = _start(tmp_path, shapes, **changes)
    _, stderr = process.communicate(timeout=120)

    failure = (tmp_path / "output/failure").read_text()
    assert process.returncode == 1
    assert sentence in failure.splitlines()[0]
    assert len(failure) <= 1024
    assert "Traceback" not in stderr


def _leaking(shapes: Path, destination: Path) -> Path:
    """The drawn set with three test images copied into train."""
    shutil.copytree(shapes, destination)
    for image in sorted((shapes / "test/star").iterdir())[:3]:
        shutil.copy(image, destination / "train/star" / f"copy-{image.name}")
    return destination


def test_leaking_data_is_warned_of_and_trained_on(shapes: Path, tmp_path: Path) -> None:
    process = _start(tmp_path / "job", _leaking(shapes, tmp_path / "data"), epochs="1")
    _, stderr = process.communicate(timeout=120)

    warned = [line for line in stderr.splitlines() if "doctor:" in line and "test/star/" in line]
    assert process.returncode == 0, stderr
    assert any("train/star/copy-" in line for line in warned), stderr
    assert json.loads((tmp_path / "job/output/data/doctor.json").read_text())["verdict"] == "stop"


def test_leaking_data_is_refused_by_strict_naming_the_pairs(shapes: Path, tmp_path: Path) -> None:
    process = _start(tmp_path / "job", _leaking(shapes, tmp_path / "data"), doctor="strict")
    process.communicate(timeout=120)

    failure = (tmp_path / "job/output/failure").read_text()
    assert process.returncode == 1
    assert "doctor=strict" in failure and "train/star/copy-" in failure and "test/star/" in failure
    assert len(failure) <= 1024


def test_unexpected_error_puts_its_cause_first(shapes: Path, tmp_path: Path) -> None:
    process = _start(tmp_path, shapes)
    process.kill()
    process.communicate()
    (tmp_path / "model").rmdir()
    (tmp_path / "model").write_text("a file where the folder should be")

    process = subprocess.Popen(
        [sys.executable, "-m", "training", "--prefix", str(tmp_path)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    _, stderr = process.communicate(timeout=120)

    failure = (tmp_path / "output/failure").read_text()
    assert process.returncode == 1
    assert failure.startswith("FileExistsError") and len(failure) <= 1024
    assert "Traceback" in stderr


def test_state_dict_becomes_an_artifact(tmp_path: Path) -> None:
    import torch

    from artifact.network import build_network

    torch.save(build_network("resnet18", 3).state_dict(), tmp_path / "model.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\nmouse\n")

    done = subprocess.run(
        [
            *(sys.executable, "-m", "training", "import"),
            *("--weights", str(tmp_path / "model.pth"), "--architecture", "resnet18"),
            *("--labels", str(tmp_path / "labels.txt"), "--output", str(tmp_path / "out")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    manifest = read_bundle(tmp_path / "out/model").manifest
    assert (manifest.architecture, manifest.labels) == ("resnet18", ("cat", "dog", "mouse"))
    assert (tmp_path / "out/model.tar.gz").is_file()
