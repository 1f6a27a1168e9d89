"""From images to a scored test set through the command line: the product's walking skeleton."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from artifact.bundle import (
    PrecisionRow,
    read_bundle,
    read_golden,
    read_test_predictions,
    write_golden,
    write_manifest,
    write_test_predictions,
)
from local.endpoint import start_endpoint
from local.platform import REPOSITORY, LocalError
from local.transform_job import run_transform_job
from serving.engine_openvino import native_precisions
from serving.handler import choose_precision
from tests.conftest import TrainedShapes, run_local
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def transformed(trained_shapes: TrainedShapes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("transformed")
    done = run_local(
        *("transform", "--artifact", str(trained_shapes.artifact)),
        *("--input", str(trained_shapes.data / "test"), "--output", str(output)),
    )
    assert done.returncode == 0, done.stderr
    return output


def test_every_image_gets_one_answer_at_its_path(trained_shapes: TrainedShapes, transformed: Path) -> None:
    sent = {path.relative_to(trained_shapes.data / "test") for path in trained_shapes.data.glob("test/*/*")}

    answered = {path.relative_to(transformed).with_suffix("") for path in transformed.rglob("*.out")}

    assert answered == sent and len(sent) == 24


def test_served_predictions_equal_the_trainers_image_by_image(
    trained_shapes: TrainedShapes, transformed: Path
) -> None:
    manifest = read_bundle(trained_shapes.output / "model").manifest
    served, labels = choose_precision(manifest, "auto", native=native_precisions()), manifest.labels
    recorded = [
        row for row in read_test_predictions(trained_shapes.output / "model") if row.precision == served
    ]

    assert len(recorded) == 24
    for row in recorded:
        answer = np.array(json.loads((transformed / f"{row.path}.out").read_text()))
        assert labels[int(np.argmax(answer, 1)[0])] == row.predicted
        assert answer.max() == pytest.approx(row.log_probability, abs=1e-5)


def test_scores_agree_with_the_trainers_own(trained_shapes: TrainedShapes, transformed: Path) -> None:
    scores = json.loads((transformed / "scores.json").read_text())
    manifest = read_bundle(trained_shapes.output / "model").manifest
    served = choose_precision(manifest, "auto", native=native_precisions())
    measured = {row.precision: row.test_top1_accuracy for row in manifest.precision_table}

    assert scores["top1_accuracy"]["value"] == measured[served]
    assert measured["fp32"] == manifest.metrics["test"]["top1_accuracy"]
    assert scores["comparison"]["top1_difference"] == 0
    assert scores["comparison"]["alarm"] is False
    assert scores["comparison"]["items_same_prediction"] == scores["comparison"]["items_compared"] == 24
    assert "<html" in (transformed / "report.html").read_text()


def test_transform_job_is_compared_with_the_precision_that_was_served(
    trained_shapes: TrainedShapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_shapes.output / "model", tmp_path / "model")
    model, manifest = tmp_path / "model", read_bundle(tmp_path / "model").manifest
    (rows, fp32) = (read_test_predictions(model), manifest.precisions["fp32"])
    recorded = {"fp32": [row for row in rows if row.precision == "fp32"]}
    recorded["other"] = [
        replace(row, precision="other", log_probability=row.log_probability - 1) for row in recorded["fp32"]
    ]
    golden = read_golden(read_bundle(model))
    answers = {name: golden.log_probabilities["fp32"] for name in recorded}
    write_golden(model, replace(golden, log_probabilities=answers))
    write_test_predictions(model, recorded["fp32"] + recorded["other"])
    table = (PrecisionRow(precision="other", kept=True, reason="", test_top1_accuracy=0.125),)
    write_manifest(model, replace(manifest, precisions={"fp32": fp32, "other": fp32}, precision_table=table))
    monkeypatch.setenv("KENNEL_PRECISION", "other")

    result = run_transform_job(
        model, input_dir=trained_shapes.data / "test", output_dir=tmp_path / "transformed"
    )

    comparison = result.scores["comparison"]
    assert comparison["largest_log_probability_difference"] == pytest.approx(1.0, abs=1e-4)
    assert comparison["trainer_top1_accuracy"] == 0.125
    assert comparison["alarm"] is True and comparison["affected"]["correct"] == 24
    assert "<td>other</td>" in result.report.read_text()


def test_one_bad_object_does_not_spoil_its_neighbours(trained_shapes: TrainedShapes, tmp_path: Path) -> None:
    shutil.copytree(trained_shapes.data / "test", tmp_path / "in")
    bad = tmp_path / "in/circle/broken.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    stale = tmp_path / "out/circle/broken.jpg.out"
    stale.parent.mkdir(parents=True)
    stale.write_text("[[0.0, -9, -9, -9]]")  # an earlier run's answer must not stand for this one

    done = run_local(
        *("transform", "--artifact", str(trained_shapes.artifact)),
        *("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")),
    )

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert done.returncode == 1
    assert "failed circle/broken.jpg: 400" in done.stderr
    assert scores["counts"]["scored"] == 24 and scores["counts"]["failed"] == 1
    assert scores["missing_or_failed"][0]["path"] == "circle/broken.jpg"
    assert "400" in scores["missing_or_failed"][0]["error"]
    assert not stale.exists()


def test_folder_without_labels_is_transformed_but_not_scored(
    trained_shapes: TrainedShapes, tmp_path: Path
) -> None:
    shutil.copytree(trained_shapes.data / "test/circle", tmp_path / "in")

    done = run_local(
        *("transform", "--artifact", str(trained_shapes.output / "model")),
        *("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")),
    )

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert done.returncode == 0, done.stderr
    assert scores["counts"]["unlabelled"] == 6 and scores["top1_accuracy"]["value"] is None


def test_serving_process_runs_without_torch(trained_shapes: TrainedShapes) -> None:
    with start_endpoint(trained_shapes.artifact) as endpoint:
        maps = [
            Path(f"/proc/{pid}/maps").read_text()
            for pid in _descendants(endpoint.process.pid)
            if Path(f"/proc/{pid}/maps").exists()
        ]

    assert any("openvino" in text for text in maps)
    assert not any("libtorch" in text for text in maps)


def test_served_artifact_answers_pytorch_and_numpy_argmax(trained_shapes: TrainedShapes) -> None:
    import torch

    picture = next((trained_shapes.data / "test/circle").iterdir()).read_bytes()
    with start_endpoint(trained_shapes.artifact) as endpoint:
        answer = requests.post(
            f"{endpoint.url}/invocations", data=picture, headers={"Content-Type": "image/jpeg"}, timeout=60
        )
        pred = answer.json()

    assert torch.tensor(pred).argmax().item() == np.argmax(pred, 1)[0]


def _serve(artifact: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local", "serve", "--artifact", str(artifact), "--port", "0"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_until_it_answers(process: subprocess.Popen[str]) -> list[int]:
    """Its server's processes."""
    assert process.stderr is not None
    for line in process.stderr:
        if "/invocations answers" in line:
            break
    return _descendants(process.pid)


def _are_gone(pids: Sequence[int], *, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(_is_running(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_serve_ends_cleanly_with_its_server(trained_shapes: TrainedShapes, number: signal.Signals) -> None:
    process = _serve(trained_shapes.artifact)
    server_pids = _wait_until_it_answers(process)

    process.send_signal(number)
    process.communicate(timeout=40)

    assert process.returncode == 0
    assert _are_gone(server_pids)


def test_serve_ends_with_its_starting_server_however_many_signals_come(trained_shapes: TrainedShapes) -> None:
    process = _serve(trained_shapes.artifact)
    server_pids = wait_until(lambda: _descendants(process.pid)[1:])

    for _ in range(2000):
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=40)

    assert process.returncode == 128 + signal.SIGTERM
    assert _are_gone(server_pids)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            ["serve", "--artifact", "nowhere.tar.gz"], "There is no artifact nowhere.tar.gz", id="serve"
        ),
        pytest.param(
            ["train", "recipes/shapes.toml", "--data", "docs", "--output", "build/x"],
            "docs holds no train folder",
            id="data",
        ),
        pytest.param(
            ["train", "recipes/shapes.toml", "--data", "docs", "--output", "build/x", "--set", "lr"],
            "'lr'",
            id="set",
        ),
        pytest.param(
            ["train", "recipes/absent.toml", "--data", "docs", "--output", "build/x"],
            "absent.toml",
            id="recipe",
        ),
    ],
)
def test_mistake_is_answered_by_one_sentence(arguments: list[str], sentence: str) -> None:
    done = run_local(*arguments)

    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_of_a_running_job_is_not_taken_over(shapes: Path, tmp_path: Path) -> None:
    command = ["train", "recipes/shapes.toml", "--data", str(shapes), "--output", str(tmp_path / "out")]
    first = subprocess.Popen(
        [sys.executable, "-m", "local", *command],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    described = tmp_path / "out/input/config/resourceconfig.json"
    trainers = wait_until(lambda: described.exists() and _descendants(first.pid)[1:]) or []
    first.kill()  # its trainer goes on
    first.wait()

    second = run_local(*command)

    assert second.returncode == 1
    assert "is still running in" in second.stderr
    for pid in trainers:
        os.kill(pid, signal.SIGKILL)


def test_tampered_artifact_is_not_served(trained_shapes: TrainedShapes, tmp_path: Path) -> None:
    shutil.copytree(trained_shapes.output / "model", tmp_path / "model")
    (tmp_path / "model/openvino/fp32.bin").write_bytes(b"changed")

    with pytest.raises((LocalError, ValueError), match="checksum"), start_endpoint(tmp_path / "model"):
        pass


def _descendants(pid: int) -> list[int]:
    """The process, its children, and theirs."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def test_server_ends_with_a_job_that_is_killed(trained_shapes: TrainedShapes) -> None:
    script = (
        "import sys, time; from pathlib import Path; from local.endpoint import start_endpoint\n"
        "with start_endpoint(Path(sys.argv[1])) as endpoint: print(endpoint.process.pid, flush=True); "
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(trained_shapes.output / "model")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        server = psutil.Process(int(job.stdout.readline()))
        job.kill()

    psutil.wait_procs([server], timeout=20)

    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
