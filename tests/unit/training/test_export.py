"""The artifact answers as the network it came from."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from artifact.baseline import SIGNALS, build_baseline, read_size
from artifact.bundle import read_bundle, read_golden, read_test_predictions
from artifact.network import PixelNetwork, build_network
from artifact.predictions import log_softmax
from artifact.preprocess import Preprocess
from training import export as export_module
from training.data import ImageSet, decode_images, read_image_folder
from training.evaluate import torch_classifier
from training.export import Trained, draw_golden_body, export, read_golden_body
from training.graph import build_graph
from training.job import JobError

PREPROCESS = Preprocess(resize=36, crop=32)
LABELS = ("circle", "square", "star", "triangle")


def _trained(architecture: str = "cnn") -> Trained:
    torch.manual_seed(0)
    return Trained(
        network=PixelNetwork(build_network(architecture, len(LABELS)), PREPROCESS),
        architecture=architecture,
        labels=LABELS,
        preprocess=PREPROCESS,
        golden_body=draw_golden_body(48),
    )


@pytest.fixture(scope="module")
def drawn(shapes: Path) -> ImageSet:
    return decode_images(read_image_folder(shapes / "test"), PREPROCESS, max_unreadable=0.0)


def test_bundle_holds_weights_graph_golden_and_predictions(tmp_path: Path, drawn: ImageSet) -> None:
    trained = _trained()

    evaluation = export(trained, tmp_path, test=drawn).test

    bundle = read_bundle(tmp_path)
    weights = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    golden = read_golden(bundle)
    predictions = read_test_predictions(tmp_path)
    assert evaluation is not None
    assert bundle.manifest.labels == LABELS and bundle.manifest.preprocess == PREPROCESS
    assert set(weights) == set(trained.network.network.state_dict())
    assert np.exp(golden.log_probabilities["fp32"]).sum() == pytest.approx(1.0)
    assert [row.path for row in predictions] == list(drawn.folder.paths)
    assert bundle.manifest.metrics["test"]["top1_accuracy"] == evaluation.top1_accuracy
    correct = sum(row.predicted == row.label for row in predictions)
    assert evaluation.top1_accuracy == pytest.approx(correct / len(predictions))


def test_without_a_test_split_there_are_no_test_predictions(tmp_path: Path) -> None:
    assert export(_trained(), tmp_path).test is None
    assert "test" not in read_bundle(tmp_path).manifest.metrics
    assert read_test_predictions(tmp_path) == []


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_graph_answers_as_the_network(tmp_path: Path, architecture: str) -> None:
    export(_trained(architecture), tmp_path)  # raises where golden answers differ

    assert read_bundle(tmp_path).manifest.architecture == architecture


def test_graph_that_answers_differently_is_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _trained()
    torch.manual_seed(1)
    different = PixelNetwork(build_network("cnn", len(LABELS)), PREPROCESS).eval()
    monkeypatch.setattr(
        export_module, "build_graph", lambda network, preprocess: build_graph(different, preprocess)
    )

    with pytest.raises(JobError, match="answers differently from the network on the golden sample"):
        export(other, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(("size", "expected"), [((40, 30), (40, 30)), ((1024, 512), (512, 256))])
def test_golden_picture_is_small(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "a.jpg")

    with Image.open(io.BytesIO(read_golden_body(tmp_path / "a.jpg"))) as golden:
        assert (golden.format, golden.size) == ("PNG", expected)


def test_baseline_of_valid_is_stored_as_the_server_will_measure_it(drawn: ImageSet, tmp_path: Path) -> None:
    trained = _trained()

    export(trained, tmp_path / "model", valid=drawn)

    manifest = read_bundle(tmp_path / "model").manifest
    answers = torch_classifier(trained.network, device=torch.device("cpu"), bf16=False)(drawn.pixels)
    sizes = [read_size((drawn.folder.root / path).read_bytes()) for path in drawn.folder.paths]
    assert manifest.baseline is not None
    expected = build_baseline(drawn.pixels, log_softmax(answers), sizes)
    assert manifest.baseline.label_groups == expected.label_groups
    assert set(manifest.baseline.histograms) == set(SIGNALS)
    for signal in set(SIGNALS) - {"confidence"}:  # whose last digits differ between network and graph
        assert manifest.baseline.histograms[signal] == expected.histograms[signal]


def test_large_valid_split_is_sampled_evenly(drawn: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "BASELINE_IMAGES", 10)
    answers = np.full((len(drawn), 4), -math.log(4))

    chosen = export_module.sample_valid(drawn)
    baseline = export_module.measure_baseline(drawn, chosen, answers[chosen])

    assert sum(baseline.histograms["blur"].counts) == 8  # every third of 24


def test_answers_that_training_knows_are_not_asked_for_again(drawn: ImageSet, tmp_path: Path) -> None:
    trained = _trained()
    asked = torch_classifier(trained.network, device=torch.device("cpu"), bf16=False)(drawn.pixels)
    known = replace(trained, valid_answers=log_softmax(-asked))

    export(trained, tmp_path / "asked", valid=drawn)
    export(known, tmp_path / "known", valid=drawn)

    asked_for, given = (read_bundle(tmp_path / name).manifest.baseline for name in ("asked", "known"))
    every = export_module.sample_valid(drawn)
    assert given == export_module.measure_baseline(drawn, every, log_softmax(-asked)) != asked_for


def test_without_a_valid_split_there_is_no_baseline(tmp_path: Path) -> None:
    export(_trained(), tmp_path / "model")

    assert read_bundle(tmp_path / "model").manifest.baseline is None
