"""Explanations and abstaining of a network trained on real images, and the process that explains."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
import torch
from numpy.typing import NDArray

from artifact.bundle import Bundle, open_bundle
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess, decode_pixels
from benchmarks import explanations
from local.endpoint import start_endpoint
from serving.processes import EXPLAIN
from tests.bundles import encode_picture, make_cnn_bundle, make_tiny_bundle
from training.data import ImageFolder, decode_images, read_image_folder
from training.export import Trained, export

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
PREPROCESS = Preprocess(resize=64, crop=64)
STEPS, BATCH = 24, 32


@pytest.fixture(scope="module")
def trained(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The hurricane network after seconds of training; what a whole one reaches, benchmarks/results says."""
    folder = read_image_folder(real_images / "hurricane/valid")
    chosen = np.random.default_rng(0).permutation(len(folder.paths))[: 8 * BATCH]
    images = decode_images(take(folder, chosen), PREPROCESS, max_unreadable=0.0)
    torch.manual_seed(0)
    network = PixelNetwork(build_network("cnn", 2), PREPROCESS)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    pixels, targets = torch.from_numpy(images.pixels), torch.from_numpy(images.folder.targets)
    for step in range(STEPS):
        batch = slice(BATCH * (step % 8), BATCH * (step % 8 + 1))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(pixels[batch]), targets[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trained = Trained(
        network=network,
        architecture="cnn",
        labels=tuple(folder.labels),
        preprocess=PREPROCESS,
        golden_body=encode_picture("PNG"),
    )
    directory = tmp_path_factory.mktemp("hurricane") / "model"
    export(trained, directory, valid=images)
    return open_bundle(directory)


def take(folder: ImageFolder, chosen: NDArray[np.int64]) -> ImageFolder:
    """Some of its images, in this order."""
    paths = tuple(folder.paths[index] for index in chosen)
    return dataclasses.replace(folder, paths=paths, targets=folder.targets[chosen])


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
def test_export_calibrates_and_knows_strangers(trained: Bundle, real_images: Path) -> None:
    manifest = trained.manifest
    paths = sorted((real_images / "woof/valid").rglob("*.JPEG"))[::5]

    assert manifest.calibration is not None and manifest.looks is not None
    strangers = [manifest.looks.rarity(decode_pixels(path.read_bytes(), PREPROCESS)) for path in paths]
    assert len(paths) >= 20
    assert np.mean(strangers) > 0.8


def test_explanations_beyond_their_queue_are_turned_away_and_predictions_answered(tmp_path: Path) -> None:
    body = encode_picture("JPEG")
    with start_endpoint(make_cnn_bundle(tmp_path / "model"), environment={"KENNEL_WORKERS": "1"}) as endpoint:
        url = f"{endpoint.url}/invocations"
        together = threading.Barrier(13)

        def explain(_: int) -> requests.Response:
            together.wait()
            return requests.post(url, body, headers={ATTRIBUTES: "explain=cam"}, timeout=60)

        with ThreadPoolExecutor(12) as threads:
            asked = threads.map(explain, range(12))
            together.wait()
            predicted = [requests.post(url, body, timeout=60).status_code for _ in range(5)]
            answers = list(asked)

        statuses = Counter(answer.status_code for answer in answers)
        assert predicted == [200] * 5
        assert statuses[200] >= 4 and statuses[503] >= 1 and statuses.total() == statuses[200] + statuses[503]
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 503)
        assert requests.get(f"{endpoint.url}/ping", timeout=30).status_code == 200


def test_process_that_explains_gets_idle_cores_only_with_every_thread(tmp_path: Path) -> None:
    with start_endpoint(make_cnn_bundle(tmp_path / "model"), environment={"KENNEL_WORKERS": "1"}) as endpoint:
        headers = {ATTRIBUTES: "explain=cam"}
        url = f"{endpoint.url}/invocations"
        assert requests.post(url, encode_picture("JPEG"), headers=headers, timeout=60).status_code == 200

        processes = psutil.Process(endpoint.process.pid).children(recursive=True)
        policies = {
            EXPLAIN in process.cmdline(): {os.sched_getscheduler(thread.id) for thread in process.threads()}
            for process in processes
            if "serving.inference" in process.cmdline()
        }

    assert policies == {False: {os.SCHED_OTHER}, True: {os.SCHED_IDLE}}


def test_network_that_cannot_be_explained_answers_422_and_406(tmp_path: Path) -> None:
    with start_endpoint(
        make_tiny_bundle(tmp_path / "model"), environment={"KENNEL_WORKERS": "1"}
    ) as endpoint:
        url, body = f"{endpoint.url}/invocations", encode_picture("JPEG")

        by_name = requests.post(url, body, headers={ATTRIBUTES: "explain=cam"}, timeout=30)
        by_accept = requests.post(url, body, headers={"Accept": "image/png"}, timeout=30)

        assert (by_name.status_code, by_name.json()["error"]["code"]) == (422, "not_explainable")
        assert by_accept.status_code == 406
