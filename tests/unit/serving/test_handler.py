"""A bundle becomes a predictor that answers as the trainer did, or is refused in a sentence."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.bundle import (
    Golden,
    Manifest,
    PrecisionRow,
    read_bundle,
    read_golden,
    write_golden,
    write_manifest,
)
from serving.engine_openvino import native_precisions
from serving.errors import GoldenMismatch, GraphError, ImageTooLarge, SettingsError, UnreadableImage
from serving.handler import Predictor, choose_precision, input_fn, model_fn, output_fn, predict_fn
from serving.messages import JSON
from serving.options import Options
from tests.bundles import encode_picture, make_tiny_bundle


@pytest.fixture
def broken_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(tiny_bundle, tmp_path / "model")


def test_served_answer_equals_what_torch_recorded_at_export(tiny_bundle: Path, predictor: Predictor) -> None:
    golden = read_golden(read_bundle(tiny_bundle))

    answered = predict_fn(input_fn(golden.body, "image/png", predictor), predictor)

    assert answered.dtype == np.float32
    np.testing.assert_allclose(answered, [golden.log_probabilities["fp32"]], atol=1e-5)


def test_concurrent_predictions_equal_those_made_in_turn(predictor: Predictor) -> None:
    pixels = [input_fn(encode_picture("PNG", seed=seed), None, predictor) for seed in range(8)] * 20
    expected = [predict_fn(one, predictor) for one in pixels]

    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(lambda one: predict_fn(one, predictor), pixels))

    assert np.array_equal(answered, expected)


def test_model_fn_takes_the_named_precision(tiny_bundle: Path) -> None:
    assert model_fn(tiny_bundle, precision="fp32", num_threads=2).precision == "fp32"


def test_unknown_precision_is_refused_naming_those_there_are(tiny_bundle: Path) -> None:
    with pytest.raises(SettingsError, match=r"KENNEL_PRECISION='int8' .* auto or fp32\."):
        model_fn(tiny_bundle, precision="int8")


def _manifest(manifest: Manifest, *rows: PrecisionRow) -> Manifest:
    """With those of the rows that were kept, after fp32."""
    fp32 = manifest.precisions["fp32"]
    return replace(
        manifest,
        precisions={"fp32": fp32} | {row.precision: fp32 for row in rows if row.kept},
        precision_table=rows,
    )


FP32 = PrecisionRow(precision="fp32", kept=True, reason="", speedup=1.0)
BF16 = PrecisionRow(precision="bf16", kept=True, reason="", speedup=1.8)
INT8 = PrecisionRow(precision="int8", kept=True, reason="", speedup=3.1)
EVERYTHING = frozenset({"fp32", "bf16", "int8"})


@pytest.mark.parametrize(
    ("rows", "wanted", "native", "chosen"),
    [
        pytest.param((FP32, BF16, INT8), "auto", EVERYTHING, "int8", id="fastest"),
        pytest.param((FP32, BF16, INT8), "auto", EVERYTHING - {"int8"}, "bf16", id="fastest_native"),
        pytest.param((FP32, BF16, INT8), "auto", frozenset({"fp32"}), "fp32", id="nothing_else_native"),
        pytest.param((FP32, BF16, INT8), "auto", frozenset[str](), "fp32", id="nothing_native"),
        pytest.param((FP32, replace(INT8, kept=False)), "auto", EVERYTHING, "fp32", id="refused_at_export"),
        pytest.param((replace(FP32, speedup=None),), "auto", EVERYTHING, "fp32", id="nothing_measured"),
        pytest.param((), "auto", EVERYTHING, "fp32", id="artifact_without_a_table"),
        pytest.param((FP32, BF16, INT8), "fp32", EVERYTHING, "fp32", id="named"),
    ],
)
def test_precision_is_the_named_one_or_the_fastest_kept_and_native(
    tiny_bundle: Path, rows: tuple[PrecisionRow, ...], wanted: str, native: frozenset[str], chosen: str
) -> None:
    manifest = _manifest(read_bundle(tiny_bundle).manifest, *rows)

    assert choose_precision(manifest, wanted, native=native) == chosen


def test_every_processor_computes_fp32() -> None:
    assert "fp32" in native_precisions()


@pytest.mark.parametrize(
    ("log_probabilities", "sentence"),
    [
        pytest.param([-1.0, -1.0, -1.2], "away from what was recorded", id="other_answer"),
        pytest.param([-1.0, float("nan"), -1.2], "away from what was recorded", id="nan"),
        pytest.param([-1.0, -1.0], "records 2 log-probabilities", id="other_number_of_classes"),
        pytest.param([], "records 0 log-probabilities for fp32", id="no_answer"),
    ],
)
def test_wrong_golden_answer_is_refused(
    log_probabilities: list[float], sentence: str, broken_bundle: Path
) -> None:
    bundle = read_bundle(broken_bundle)
    answers = {"fp32": log_probabilities} if log_probabilities else {}
    write_golden(broken_bundle, Golden(body=read_golden(bundle).body, log_probabilities=answers))
    write_manifest(broken_bundle, bundle.manifest)

    with pytest.raises(GoldenMismatch, match=sentence):
        model_fn(broken_bundle)


@pytest.mark.parametrize("name", ["openvino/fp32.xml", "openvino/fp32.bin"])
def test_graph_openvino_cannot_load_is_refused(name: str, broken_bundle: Path) -> None:
    manifest = read_bundle(broken_bundle).manifest
    (broken_bundle / name).write_bytes(b"<net")
    write_manifest(broken_bundle, manifest)

    with pytest.raises(GraphError, match=r"fp32\.xml is not a graph OpenVINO can load"):
        model_fn(broken_bundle)


@pytest.mark.parametrize(
    ("num_classes", "crop"),
    [pytest.param(4, 32, id="other_number_of_classes"), pytest.param(3, 24, id="other_crop")],
)
def test_graph_that_does_not_fit_the_manifest_is_refused(
    num_classes: int, crop: int, broken_bundle: Path, tmp_path: Path
) -> None:
    manifest = read_bundle(broken_bundle).manifest
    other = make_tiny_bundle(tmp_path / "other", num_classes=num_classes, crop=crop)
    shutil.copytree(other / "openvino", broken_bundle / "openvino", dirs_exist_ok=True)
    write_manifest(broken_bundle, manifest)

    with pytest.raises(GraphError, match="the manifest asks for"):
        model_fn(broken_bundle)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a picture", id="text"),
        pytest.param(encode_picture("JPEG")[:-200], id="truncated_jpeg"),
    ],
)
def test_unreadable_body_is_refused_with_a_hint(body: bytes, predictor: Predictor) -> None:
    with pytest.raises(UnreadableImage) as raised:
        input_fn(body, "image/jpeg", predictor)

    assert "JPEG" in raised.value.hint


def test_picture_over_the_pixel_limit_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ImageTooLarge, match="limit of 100"):
        input_fn(encode_picture("PNG"), None, predictor, Options(max_pixels=100))


def test_input_is_one_uint8_picture_of_the_crop_size(predictor: Predictor) -> None:
    pixels = input_fn(encode_picture("JPEG"), None, predictor)

    assert pixels.shape == (1, 32, 32, 3)
    assert pixels.dtype == np.uint8


def test_output_without_top_is_every_log_probability_in_label_order() -> None:
    body, content_type = output_fn(np.array([[-1.5, -0.25]], dtype=np.float32), JSON, ("a", "b"), None)

    assert (body, content_type) == (b"[[-1.5, -0.25]]", JSON)
