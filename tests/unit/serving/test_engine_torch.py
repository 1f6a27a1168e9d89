"""The GPU image's engine, here on the processor: OpenVINO's answers, and a driver that is too old."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.bundle import WEIGHTS, BundleError, read_bundle, write_manifest
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from serving.batching import Batcher
from serving.engine_torch import TorchPredictor, check_driver
from serving.errors import DriverError, GraphError, SettingsError
from serving.handler import model_fn
from training.export import Trained, draw_golden_body, export

LABELS = ("circle", "square", "star")


@pytest.fixture(scope="module", params=["cnn", "densenet121", "custom head"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real export: random weights, whose batch norms have seen something."""
    torch.manual_seed(3)
    head = {"head_hidden": 16, "dropout": 0.2} if request.param == "custom head" else {}
    architecture = "resnet18" if head else request.param
    preprocess = Preprocess(resize=48, crop=40)
    network = build_network(
        architecture,
        len(LABELS),
        head_hidden=int(head.get("head_hidden", 0)),
        dropout=head.get("dropout", 0.0),
    )
    with torch.no_grad():
        network.train()(torch.rand(16, 3, 40, 40))
    trained = Trained(
        network=PixelNetwork(network, preprocess),
        architecture=architecture,
        labels=LABELS,
        preprocess=preprocess,
        golden_body=draw_golden_body(64),
        hyperparameters=head,
    )
    directory = tmp_path_factory.mktemp("model")
    export(trained, directory)
    return directory


def test_torch_answers_as_openvino_does(model_dir: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)

    by_torch = model_fn(model_dir, engine="torch", precision="fp32", num_threads=2).predict(pixels)

    by_openvino = model_fn(model_dir, engine="openvino", precision="fp32", num_threads=2).predict(pixels)
    assert by_torch.dtype == np.float32 and by_torch.shape == (9, 3)
    np.testing.assert_allclose(by_torch, by_openvino, atol=1e-4)


def test_answer_does_not_depend_on_batch_mates(model_dir: Path) -> None:
    predictor = TorchPredictor(read_bundle(model_dir), precision="fp32", num_threads=1)
    batcher = Batcher(predictor.run, max_batch=4, target_seconds=5.0)
    draws = np.random.default_rng(1).integers(0, 256, (16, 40, 40, 3), dtype=np.uint8)
    picture, mates = draws[:1], draws[1:].reshape(5, 3, 40, 40, 3)

    alone = batcher.predict(picture)[0]
    in_company = [batcher.predict(np.concatenate([picture, others]))[0] for others in mates]

    np.testing.assert_allclose(in_company, [alone] * 5, atol=1e-4)
    assert all(np.array_equal(answer, in_company[0]) for answer in in_company)


@pytest.mark.parametrize(
    "architecture", [pytest.param("alexnet", id="other"), pytest.param("resnet_18", id="unknown")]
)
def test_weights_that_do_not_fit_the_architecture_are_refused(
    model_dir: Path, architecture: str, tmp_path: Path
) -> None:
    broken = shutil.copytree(model_dir, tmp_path / "model")
    write_manifest(broken, replace(read_bundle(broken).manifest, architecture=architecture))

    with pytest.raises(GraphError, match=f"does not hold a {architecture}"):
        model_fn(broken, engine="torch")


def test_weights_without_their_checksum_are_refused(model_dir: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model_dir, tmp_path / "model")
    with (broken / WEIGHTS).open("ab") as file:
        file.write(b"x")

    with pytest.raises(BundleError, match=r"weights\.safetensors does not have the checksum"):
        model_fn(broken, engine="torch")


def test_int8_is_refused_naming_what_torch_computes(model_dir: Path) -> None:
    with pytest.raises(SettingsError, match="computes fp32 or bf16"):
        TorchPredictor(read_bundle(model_dir), precision="int8", num_threads=1)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024",
            id="g4dn",
        ),
        pytest.param(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  515.65.01  Release Build", id="open"
        ),
    ],
)
def test_driver_too_old_for_cuda_12_names_what_to_set(version: str) -> None:
    with pytest.raises(DriverError, match=r"InferenceAmiVersion=.* TransformAmiVersion="):
        check_driver(version)


@pytest.mark.parametrize("version", ["535.54.03", "580.95.05"])
def test_driver_of_a_batch_transform_host_and_later_is_taken(version: str) -> None:
    check_driver(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Wed Nov  1 2023")
