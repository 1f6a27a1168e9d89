"""Explanations and abstaining of a network trained on real images, and the process that explains."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from artifact.bundle import Bundle, open_bundle
from benchmarks import calibration, explanations
from local.endpoint import start_endpoint
from serving.handler import model_fn
from tests.bundles import encode_picture, make_cnn_bundle, make_tiny_bundle
from tests.conftest import run_local

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
SETTINGS = {"image_size": 64, "resize": 64, "epochs": 3, "batch_size": 16, "quantize": "off", "doctor": "off"}
IMAGES = {"train": 120, "valid": 60, "test": 20}  # per class


@pytest.fixture(scope="module")
def trained(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The hurricane network, after seconds of training; what a whole one reaches, benchmarks/results says."""
    directory = tmp_path_factory.mktemp("hurricane")
    for split, count in IMAGES.items():
        for folder in sorted((real_images / "hurricane" / split).iterdir()):
            (directory / "data" / split / folder.name).mkdir(parents=True)
            for path in random.Random(0).sample(sorted(folder.iterdir()), count):
                (directory / "data" / split / folder.name / path.name).symlink_to(path)
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    command = ["train", "recipes/hurricane-cnn.toml", "--data", str(directory / "data"), *settings]
    run_local(*command, "--output", str(directory / "out"), check=True)
    return open_bundle(directory / "out/model")


@pytest.mark.real_images
def test_maps_are_captums_and_deleting_what_they_like_beats_chance(
    trained: Bundle, real_images: Path
) -> None:
    paths = sorted((real_images / "hurricane/test").rglob("*.jpeg"))[::100]

    figures = explanations.measure(trained, paths, "fp32")

    assert figures["images"] == 20
    assert figures["least_correlation_with_captum"] >= 0.9
    assert figures["deletion_beats_chance"] >= 0.6
    assert figures["mean_drop_by_map"] > figures["mean_drop_by_chance"]


@pytest.mark.real_images
def test_calibration_fits_its_own_split_and_dogs_are_strangers(trained: Bundle, real_images: Path) -> None:
    predictor, folder = model_fn(trained.directory), trained.directory.parents[1] / "data/valid"

    figures = calibration.measure(trained.manifest, predictor, folder, [real_images / "woof/valid"])

    assert figures["temperature"] != 1.0 and figures["calibration_error"] < 0.2
    assert figures["strangers"]["woof/valid"]["auroc_of_looks"] > 0.95
    assert figures["called_strange"] < 0.05


def test_explanations_beyond_their_queue_are_turned_away_and_predictions_answered(tmp_path: Path) -> None:
    body = encode_picture("JPEG")
    with start_endpoint(make_cnn_bundle(tmp_path / "model"), environment={"KENNEL_WORKERS": "1"}) as endpoint:
        url = f"{endpoint.url}/invocations"
        together = threading.Barrier(13)

        def explain(_: int) -> requests.Response:
            together.wait()
            return requests.post(url, body, headers={ATTRIBUTES: "explain=cam"}, timeout=60)

        with ThreadPoolExecutor(12) as threads:
            answers = threads.map(explain, range(12))
            together.wait()
            predicted = [requests.post(url, body, timeout=60).status_code for _ in range(5)]
            answers = list(answers)

        statuses = Counter(answer.status_code for answer in answers)
        assert predicted == [200] * 5
        assert statuses[200] >= 4 and statuses[503] >= 1 and statuses.total() == statuses[200] + statuses[503]
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 503)
        assert requests.get(f"{endpoint.url}/ping", timeout=30).status_code == 200


def test_network_that_cannot_be_explained_answers_422_and_406(tmp_path: Path) -> None:
    with start_endpoint(
        make_tiny_bundle(tmp_path / "model"), environment={"KENNEL_WORKERS": "1"}
    ) as endpoint:
        url, body = f"{endpoint.url}/invocations", encode_picture("JPEG")

        by_name = requests.post(url, body, headers={ATTRIBUTES: "explain=cam"}, timeout=30)
        by_accept = requests.post(url, body, headers={"Accept": "image/png"}, timeout=30)

        assert (by_name.status_code, by_name.json()["error"]["code"]) == (422, "not_explainable")
        assert by_accept.status_code == 206
