"""Training's evaluation, a transform job and single requests see every picture of a test set alike."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.bundle import read_bundle, read_test_predictions, unpack_artifact
from local.endpoint import start_endpoint
from local.transform_job import run_transform_job
from tests.conftest import run_local

SMALL = (
    "epochs=1",
    "image_size=64",
    "resize=64",
    "quantize=off",
    "architecture=cnn",
    "doctor=off",
    "debug=false",
)
TRAINING_IMAGES = 40  # per class: the numbers must be equal, not good


def link_small_set(data: Path, directory: Path) -> Path:
    """The whole test split, and a little of the others."""
    for split in ("train", "valid"):
        for folder in sorted((data / split).iterdir()):
            small = directory / split / folder.name
            small.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:TRAINING_IMAGES]:
                (small / path.name).symlink_to(path)
    (directory / "test").symlink_to(data / "test")
    return directory


@pytest.mark.real_images
@pytest.mark.parametrize(
    ("name", "count"), [pytest.param("hurricane", 2000, id="hurricane"), pytest.param("woof", 300, id="woof")]
)
def test_trainer_transform_and_single_requests_agree_on_every_image(
    name: str, count: int, real_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = link_small_set(real_images / name, tmp_path / "data")
    settings = [argument for setting in SMALL for argument in ("--set", setting)]
    recipe = "recipes/hurricane-cnn.toml"
    done = run_local("train", recipe, "--data", str(data), "--output", str(tmp_path / "out"), *settings)
    assert done.returncode == 0, done.stderr
    artifact = tmp_path / "out/model.tar.gz"
    monkeypatch.setenv("KENNEL_PRECISION", "fp32")

    run_transform_job(artifact, input_dir=data / "test", output_dir=tmp_path / "transformed")

    directory = tmp_path / "model"
    unpack_artifact(artifact, directory)
    labels = read_bundle(directory).manifest.labels
    trained = [item for item in read_test_predictions(directory) if item.precision == "fp32"]
    paths = [item.path for item in trained]
    single = ask_one_by_one(artifact, data / "test", paths)
    transformed = {path: read_row((tmp_path / f"transformed/{path}.out").read_bytes()) for path in paths}
    assert len(trained) == count
    for item in trained:
        np.testing.assert_array_equal(single[item.path], transformed[item.path], err_msg=item.path)
        assert labels[single[item.path].argmax()] == item.predicted, item.path
        assert single[item.path].max() == pytest.approx(item.log_probability, abs=1e-3), item.path


def ask_one_by_one(artifact: Path, directory: Path, paths: list[str]) -> dict[str, NDArray[np.float64]]:
    answers = {}
    with (
        start_endpoint(artifact) as endpoint,
        closing(http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)) as connection,
    ):
        for path in paths:
            connection.request("POST", "/invocations", (directory / path).read_bytes())
            answers[path] = read_row(connection.getresponse().read())
    return answers


def read_row(body: bytes) -> NDArray[np.float64]:
    return np.array(json.loads(body)[0])
