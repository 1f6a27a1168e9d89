"""A faster precision is kept only where it is as right as fp32 and really faster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.bundle import PrecisionRow, read_bundle, read_golden, read_test_predictions
from artifact.network import Cnn, PixelNetwork
from artifact.preprocess import Preprocess
from serving.handler import input_fn, model_fn, predict_fn
from training import quantize
from training.data import ImageSet, decode_images, read_image_folder
from training.evaluate import cross_entropy
from training.export import Trained, draw_golden_body, export
from training.graph import has_native_bf16
from training.quantize import Samples, choose_calibration, measure_precisions, refusal, tolerance

PREPROCESS = Preprocess(resize=36, crop=32)
LABELS = ("circle", "square", "star", "triangle")
NATIVE = ["fp32", "bf16", "int8"] if has_native_bf16() else ["fp32", "int8"]


@pytest.fixture(scope="module")
def images(shapes: Path) -> ImageSet:
    """The drawn pictures the network learns by heart, so that it has something to lose."""
    return decode_images(read_image_folder(shapes / "train"), PREPROCESS, max_unreadable=0.0)


@pytest.fixture(scope="module")
def trained(images: ImageSet) -> Trained:
    torch.manual_seed(0)
    network = PixelNetwork(Cnn(len(LABELS), widths=(16, 32, 64)), PREPROCESS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    pixels, targets = torch.from_numpy(images.pixels), torch.from_numpy(images.folder.targets)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(network(pixels), targets, 0.0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Trained(
        network=network,
        architecture="cnn",
        labels=LABELS,
        preprocess=PREPROCESS,
        golden_body=draw_golden_body(48),
    )


@pytest.fixture
def any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared machine's timing of a network this small decides nothing here."""
    monkeypatch.setattr(quantize, "MIN_SPEEDUP", 0.0)


@pytest.fixture(scope="module")
def bundle_dir(
    trained: Trained, images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An artifact with every precision that this processor has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "MIN_SPEEDUP", 0.0)
        directory = tmp_path_factory.mktemp("quantized") / "model"
        export(trained, directory, test=images, samples=Samples(calibration=images.pixels, valid=images))
        yield directory


def _rows(rows: list[PrecisionRow]) -> dict[str, PrecisionRow]:
    return {row.precision: row for row in rows}


@pytest.mark.parametrize(
    ("top1_drop", "speedup", "reason"),
    [
        pytest.param(0.0, 3.0, "", id="as_right_and_faster"),
        pytest.param(-0.01, 1.3, "", id="righter_and_just_fast_enough"),
        pytest.param(0.9 - 0.895, 2.0, "", id="half_a_point"),
        pytest.param(0.0051, 9.0, "top-1 falls by 0.51 points, allowed 0.5", id="less_right"),
        pytest.param(0.0, 1.29, "1.29 times as fast as fp32, wanted 1.3", id="hardly_faster"),
        pytest.param(float("nan"), 2.0, "top-1 falls by nan points, allowed 0.5", id="nan"),
    ],
)
def test_measured_precision_is_kept_or_refused_with_the_reason(
    top1_drop: float, speedup: float, reason: str
) -> None:
    assert refusal(top1_drop=top1_drop, speedup=speedup) == reason


def test_every_kept_precision_is_in_graph_golden_predictions_and_table(
    bundle_dir: Path, images: ImageSet
) -> None:
    bundle = read_bundle(bundle_dir)
    table = _rows(list(bundle.manifest.precision_table))
    predictions = read_test_predictions(bundle_dir)

    assert list(bundle.manifest.precisions) == list(read_golden(bundle).log_probabilities) == NATIVE
    assert table.keys() == {"fp32", "bf16", "int8"}
    assert bundle.manifest.precisions["int8"].graph == "openvino/int8.xml"
    for precision in NATIVE:
        row, rows = table[precision], [item for item in predictions if item.precision == precision]
        assert row.kept and row.latency_ms and row.speedup and row.agreement
        assert [item.path for item in rows] == list(images.folder.paths)
        right = sum(item.predicted == item.label for item in rows) / len(rows)
        assert row.test_top1_accuracy == pytest.approx(right)
    assert table["fp32"].top1_accuracy == bundle.manifest.metrics["test"]["top1_accuracy"] > 0.95


def test_int8_is_another_arithmetic_and_not_fp32_under_another_name(bundle_dir: Path) -> None:
    golden = read_golden(read_bundle(bundle_dir)).log_probabilities

    assert np.abs(np.subtract(golden["int8"], golden["fp32"])).max() > 1e-5


@pytest.mark.parametrize("precision", NATIVE)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_served_answers_equal_the_trainers_in_every_precision(
    bundle_dir: Path, shapes: Path, precision: str, num_threads: int
) -> None:
    predictor = model_fn(bundle_dir, precision=precision, num_threads=num_threads)  # golden passes in here

    for row in read_test_predictions(bundle_dir):
        if row.precision == precision:
            body = (shapes / "train" / row.path).read_bytes()
            answer = predict_fn(input_fn(body, None, predictor), predictor)[0]
            assert LABELS[int(answer.argmax())] == row.predicted
            assert answer.max() == pytest.approx(row.log_probability, abs=1e-5)


def test_auto_serves_a_kept_precision(bundle_dir: Path) -> None:
    table = _rows(list(read_bundle(bundle_dir).manifest.precision_table))

    served = model_fn(bundle_dir).precision

    assert table[served].speedup == max(table[name].speedup or 0.0 for name in NATIVE)


def test_int8_calibrated_on_black_images_is_refused_for_its_accuracy(
    trained: Trained, images: ImageSet, tmp_path: Path, any_speed: None
) -> None:
    black = np.zeros_like(images.pixels)

    export(trained, tmp_path, samples=Samples(calibration=black, valid=images))

    manifest = read_bundle(tmp_path).manifest
    row = _rows(list(manifest.precision_table))["int8"]
    assert not row.kept and row.reason.startswith("top-1 falls by ")
    assert row.top1_accuracy is not None and row.top1_accuracy < 0.9
    assert "int8" not in manifest.precisions
    assert not list((tmp_path / "openvino").glob("int8*"))


def test_precision_that_is_too_slow_is_refused(
    trained: Trained, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "MIN_SPEEDUP", 1000.0)

    export(trained, tmp_path, samples=Samples(calibration=images.pixels, valid=images))

    manifest = read_bundle(tmp_path).manifest
    assert list(manifest.precisions) == ["fp32"]
    assert "times as fast as fp32, wanted 1000" in _rows(list(manifest.precision_table))["int8"].reason


def test_graph_nncf_cannot_quantize_costs_int8_and_not_the_job(
    trained: Trained, images: ImageSet, tmp_path: Path, any_speed: None
) -> None:
    misshapen = np.zeros((4, 16, 16, 3), dtype=np.uint8)  # OpenVINO refuses to run the graph on these

    export(trained, tmp_path, samples=Samples(calibration=misshapen, valid=images))

    manifest = read_bundle(tmp_path).manifest
    assert "fp32" in manifest.precisions and "int8" not in manifest.precisions
    assert "NNCF cannot quantize this graph" in _rows(list(manifest.precision_table))["int8"].reason


def test_without_samples_fp32_alone_is_kept_and_the_reason_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        rows = _rows(measure_precisions(tmp_path, "quantize=off"))

    assert [row.precision for row in rows.values() if row.kept] == ["fp32"]
    assert {rows[name].reason for name in ("bf16", "int8")} == {"quantize=off"}
    assert "precision=int8 kept=false reason='quantize=off'" in caplog.messages


def test_calibration_is_seeded_and_cropped_as_in_evaluation(shapes: Path, images: ImageSet) -> None:
    uncropped = decode_images(images.folder, replace(PREPROCESS, crop=PREPROCESS.resize), max_unreadable=0.0)

    everything = choose_calibration(uncropped, crop=PREPROCESS.crop, seed=0)
    few = [
        choose_calibration(_repeated(uncropped, 400), crop=PREPROCESS.crop, seed=seed) for seed in (0, 0, 1)
    ]

    assert np.array_equal(everything, images.pixels)
    assert len(few[0]) == quantize.CALIBRATION_IMAGES
    assert np.array_equal(few[0], few[1]) and not np.array_equal(few[0], few[2])


def test_tolerance_grows_with_the_log_probabilities() -> None:
    assert tolerance("fp32", np.array([-1.0, -100.0])) == pytest.approx(0.01)
    assert tolerance("int8", np.array([-1.0, -2.0])) == pytest.approx(0.05)


def _repeated(images: ImageSet, count: int) -> ImageSet:
    rows = np.arange(count) % len(images)
    folder = replace(images.folder, paths=tuple(images.folder.paths[row] for row in rows))
    return replace(images, folder=folder, pixels=images.pixels[rows])
