"""What is served, on disk: everything that does not match is refused in a sentence."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from artifact.baseline import Baseline, Histogram
from artifact.bundle import (
    BundleError,
    Manifest,
    Precision,
    PrecisionRow,
    TestPrediction,
    pack_artifact,
    read_bundle,
    read_test_predictions,
    unpack_artifact,
    write_manifest,
    write_test_predictions,
)
from artifact.preprocess import Preprocess


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A bundle with a stand-in graph file: nothing here runs it."""
    (tmp_path / "bundle/openvino").mkdir(parents=True)
    (tmp_path / "bundle/openvino/fp32.xml").write_text("<net/>")
    write_manifest(
        tmp_path / "bundle",
        Manifest(
            architecture="cnn",
            labels=("cat", "dog"),
            preprocess=Preprocess(resize=40, crop=32),
            precisions={"fp32": Precision(graph="openvino/fp32.xml", tolerance=1e-3)},
            metrics={"test": {"top1_accuracy": 0.5}},
        ),
    )
    return tmp_path / "bundle"


def _edit(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_bundle_reads_back_what_was_written(directory: Path) -> None:
    bundle = read_bundle(directory)

    assert bundle.manifest.labels == ("cat", "dog")
    assert bundle.manifest.preprocess == Preprocess(resize=40, crop=32)
    assert bundle.manifest.precisions["fp32"].tolerance == 1e-3
    assert bundle.manifest.metrics == {"test": {"top1_accuracy": 0.5}}
    assert set(bundle.manifest.files) == {"openvino/fp32.xml"}


def test_precision_table_reads_back_and_may_hold_newer_columns(directory: Path) -> None:
    rows = (
        PrecisionRow(precision="fp32", kept=True, reason="the reference", speedup=1.0),
        PrecisionRow(precision="int8", kept=False, reason="quantize=off"),
    )
    precisions = {"fp32": Precision(graph="openvino/fp32.xml", tolerance=0.05, arithmetic="bf16")}
    write_manifest(
        directory, replace(read_bundle(directory).manifest, precisions=precisions, precision_table=rows)
    )
    _edit(directory, precision_table=[asdict(row) | {"watts": 3.0} for row in rows])

    manifest = read_bundle(directory).manifest

    assert manifest.precision_table == rows
    assert manifest.precisions == precisions


def test_precision_without_an_arithmetic_is_computed_in_float32(directory: Path) -> None:
    _edit(directory, precisions={"fp32": {"graph": "openvino/fp32.xml", "tolerance": 0.001}})

    assert read_bundle(directory).manifest.precisions["fp32"].arithmetic == "f32"


def test_baseline_reads_back_and_may_be_absent(directory: Path) -> None:
    manifest = read_bundle(directory).manifest
    assert manifest.baseline is None
    baseline = Baseline(label_groups=(0, 1), histograms={"blur": Histogram(edges=(1.5,), counts=(3, 4))})

    write_manifest(directory, replace(manifest, baseline=baseline))

    assert read_bundle(directory).manifest.baseline == baseline


def test_unknown_keys_and_a_newer_minor_version_are_read(directory: Path) -> None:
    _edit(directory, format_version="1.7", temperature=1.3)

    assert read_bundle(directory).manifest.format_version == "1.7"


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        pytest.param(lambda d: _edit(d, format_version="2.0"), "Use a newer serving image", id="version"),
        pytest.param(lambda d: (d / "manifest.json").unlink(), "not a Kennel artifact", id="no manifest"),
        pytest.param(lambda d: (d / "manifest.json").write_text("{"), "not a usable manifest", id="no json"),
        pytest.param(lambda d: _edit(d, labels=["cat"]), "at least two labels", id="labels"),
        pytest.param(lambda d: _edit(d, preprocess={"crop": 3}), "KeyError: 'resize'", id="preprocess"),
        pytest.param(
            lambda d: _edit(d, baseline={"label_groups": [0], "histograms": {}}),
            "1 label_groups for 2 labels",
            id="baseline",
        ),
        pytest.param(lambda d: (d / "openvino/fp32.xml").unlink(), r"fp32\.xml is missing", id="file"),
        pytest.param(lambda d: (d / "openvino/fp32.xml").write_text("x"), "checksum", id="checksum"),
        pytest.param(lambda d: _edit(d, files={}), "fp32 graph", id="graph without checksum"),
    ],
)
def test_bundle_that_does_not_match_is_refused(
    directory: Path, break_it: Callable[[Path], object], sentence: str
) -> None:
    break_it(directory)

    with pytest.raises(BundleError, match=sentence):
        read_bundle(directory)


def test_test_predictions_read_back_exactly(tmp_path: Path) -> None:
    rows = [
        TestPrediction(path="a/1.jpg", label="a", precision="fp32", predicted="b", log_probability=-0.1 / 3),
        TestPrediction(
            path='b/"odd, name.jpg', label="b", precision="fp32", predicted="b", log_probability=0.0
        ),
    ]

    write_test_predictions(tmp_path, rows)

    assert read_test_predictions(tmp_path) == rows


def test_artifact_unpacks_to_the_same_bundle_and_packs_to_the_same_bytes(
    directory: Path, tmp_path: Path
) -> None:
    pack_artifact(directory, tmp_path / "model.tar.gz")
    unpack_artifact(tmp_path / "model.tar.gz", tmp_path / "unpacked")
    pack_artifact(tmp_path / "unpacked", tmp_path / "again.tar.gz")

    assert read_bundle(tmp_path / "unpacked").manifest == read_bundle(directory).manifest
    assert (tmp_path / "model.tar.gz").read_bytes() == (tmp_path / "again.tar.gz").read_bytes()


def test_unpacked_files_can_be_read_by_any_user(directory: Path, tmp_path: Path) -> None:
    (directory / "openvino/fp32.xml").chmod(0o600)

    pack_artifact(directory, tmp_path / "model.tar.gz")

    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert {member.mode for member in archive if member.isfile()} == {0o644}
        assert {member.mode for member in archive if member.isdir()} == {0o755}


def test_archive_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("../outside")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))

    with pytest.raises(BundleError, match="not a sound"):
        unpack_artifact(tmp_path / "model.tar.gz", tmp_path / "unpacked")
    assert not (tmp_path / "outside").exists()


def test_broken_archive_is_refused(directory: Path, tmp_path: Path) -> None:
    pack_artifact(directory, tmp_path / "model.tar.gz")
    archive = (tmp_path / "model.tar.gz").read_bytes()
    (tmp_path / "model.tar.gz").write_bytes(archive[: len(archive) // 5])  # a tar ends in zeros

    with pytest.raises(BundleError, match="not a sound"):
        unpack_artifact(tmp_path / "model.tar.gz", tmp_path / "unpacked")
