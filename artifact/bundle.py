"""What is served, on disk: manifest, weights, graphs, golden sample; and model.tar.gz around them.

    manifest.json          what the files are and how to use them; sha256 of each
    weights.safetensors    the network's weights by torch's parameter names
    openvino/<precision>.xml, .bin
    golden.png, golden.json    one small picture and, per precision, the log-probabilities recorded at export
    manifest.json.minisig  optional signature of the manifest (artifact/signature.py)
    code/inference.py      optional stages of the user's own, run only where the operator allows it
    test_predictions.csv   path, label, precision, predicted, log_probability: what the trainer predicted

No pickle. `read_bundle` refuses what does not match, in a sentence.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from artifact.baseline import Baseline
from artifact.calibration import Calibration
from artifact.labels import check_labels
from artifact.looks import Looks
from artifact.preprocess import Preprocess
from artifact.signature import PublicKey, SignatureError, verify_signature

FORMAT_VERSION = "1.0"  # a reader refuses a newer major and ignores keys it does not know
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
WEIGHTS = "weights.safetensors"
GOLDEN_IMAGE = "golden.png"
GOLDEN_ANSWERS = "golden.json"
TEST_PREDICTIONS = "test_predictions.csv"


class BundleError(ValueError):
    """The files are not a bundle this version can use; the message says which file, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """One graph of the bundle and how far its answers may lie from the recorded ones."""

    graph: str  # path of the .xml inside the bundle
    tolerance: float  # largest allowed |difference| of a golden log-probability on another machine
    # In which the graph's float operations are computed, f32 or bf16: left to itself, an engine takes what
    # the processor has, and answers change with the machine.
    arithmetic: str = "f32"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRow:
    """A precision that was considered at export: whether it was kept, why, and what was measured."""

    precision: str
    kept: bool
    reason: str
    top1_accuracy: float | None = None  # on the valid split; None where nothing was measured
    agreement: float | None = None  # share of the valid images with the same top-1 as fp32
    speedup: float | None = None  # against fp32 on the machine that exported, one image at a time
    latency_ms: float | None = None  # there, on one thread
    test_top1_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """manifest.json, typed."""

    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    precisions: dict[str, Precision]
    precision_table: tuple[PrecisionRow, ...] = ()  # refused ones too
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # channel -> metric -> value
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # fingerprint and counts of the channels
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    baseline: Baseline | None = None  # of the valid split; None where there was none
    calibration: Calibration | None = None  # on the valid split; None where that was too small
    looks: Looks | None = None  # of the valid split; None where that was too small
    explanation: str = ""  # how the graphs can be explained: "cam" where their second output is a feature map
    files: dict[str, str] = field(default_factory=dict)  # path -> sha256
    format_version: str = FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The sample every server must answer as the trainer did."""

    body: bytes  # PNG
    log_probabilities: dict[str, list[float]]  # precision -> (num_classes,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPrediction:
    """One row of test_predictions.csv."""

    __test__ = False  # not a pytest class

    path: str  # relative to the test channel, `<label>/<file>`
    label: str
    precision: str
    predicted: str
    log_probability: float  # of `predicted`


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose manifest was read."""

    directory: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.directory / name


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json with the sha256 of every other file there; call it last."""
    stored = asdict(manifest) | {"files": _checksums(directory)}
    (directory / MANIFEST).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle and verify all its files. Raises BundleError saying what does not match."""
    bundle = open_bundle(directory)
    verify_files(bundle, bundle.manifest.files)
    return bundle


def open_bundle(directory: Path, *, public_key: PublicKey | None = None) -> Bundle:
    """Read a bundle whose files are still to be verified: a server does so with those it loads.

    With a public key the manifest must be signed with it. Raises BundleError.
    """
    manifest = _read_manifest(directory, public_key)
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"{directory / MANIFEST} lists {name!r}, outside its folder; copy it again.")
        if not (directory / name).is_file():
            raise BundleError(
                f"{directory / name} is missing though {MANIFEST} lists it; copy the whole artifact again."
            )
    for name, precision in manifest.precisions.items():
        if precision.graph not in manifest.files:
            raise BundleError(
                f"{directory / MANIFEST}: the {name} graph {precision.graph!r} is not listed in files."
            )
    return Bundle(directory=directory, manifest=manifest)


def verify_files(bundle: Bundle, names: Iterable[str]) -> None:
    """Raises BundleError for the first file that does not have the manifest's checksum, or has none."""
    for name in names:
        if _sha256(bundle.path(name)) != bundle.manifest.files.get(name):
            raise BundleError(
                f"{bundle.path(name)} does not have the checksum in {MANIFEST}; copy the artifact again."
            )


def write_golden(directory: Path, golden: Golden) -> None:
    """Write the golden sample beside the graphs."""
    (directory / GOLDEN_IMAGE).write_bytes(golden.body)
    (directory / GOLDEN_ANSWERS).write_text(
        json.dumps({"log_probabilities": golden.log_probabilities}, indent=2)
    )


def read_golden(bundle: Bundle) -> Golden:
    """The golden sample. Raises BundleError where the bundle has none."""
    try:
        verify_files(bundle, [GOLDEN_IMAGE, GOLDEN_ANSWERS])
        body = bundle.path(GOLDEN_IMAGE).read_bytes()
        answers = json.loads(bundle.path(GOLDEN_ANSWERS).read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{error.filename} is missing; export the model again.") from error
    return Golden(body=body, log_probabilities=answers["log_probabilities"])


def write_test_predictions(directory: Path, predictions: Iterable[TestPrediction]) -> None:
    """What the trainer predicted, one row per test item and precision."""
    with (directory / TEST_PREDICTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(TestPrediction.__slots__)
        for row in predictions:
            writer.writerow([row.path, row.label, row.precision, row.predicted, repr(row.log_probability)])


def read_test_predictions(directory: Path) -> list[TestPrediction]:
    """Empty where the trainer had no test channel."""
    path = directory / TEST_PREDICTIONS
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            TestPrediction(**(row | {"log_probability": float(row["log_probability"])}))  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


def pack_artifact(directory: Path, archive: Path) -> None:
    """model.tar.gz as SageMaker makes it from /opt/ml/model; the same files give the same bytes.

    Stored, not deflated: weights lose 7 % of their size by that, and a job or a start seconds.
    """
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=0, fileobj=file, mtime=0) as zipped,
    ):
        with tarfile.open(
            fileobj=zipped, mode="w", dereference=True
        ) as tar:  # links are refused on the way back
            for path in sorted(directory.rglob("*")):
                info = tar.gettarinfo(path, path.relative_to(directory).as_posix())
                info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
                info.mode = 0o755 if info.isdir() else 0o644  # the server is another user
                with io.BytesIO() if info.isdir() else path.open("rb") as content:
                    tar.addfile(info, content)


def unpack_artifact(archive: Path, directory: Path) -> None:
    """Into `directory`, made here: plain files and folders, nothing else.

    Raises BundleError for a broken archive, and for one with a link, a device, an absolute path or a `..`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(directory, filter=_plain_member)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise BundleError(f"{archive} is not a sound .tar.gz ({error}); copy it again.") from error


def _plain_member(member: tarfile.TarInfo, directory: str) -> tarfile.TarInfo:
    """Stricter than tarfile's data filter, which allows links inside and makes absolute paths relative."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{member.name!r} would land outside the folder")
    if not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
    plain = tarfile.data_filter(member, directory)
    assert plain is not None  # data_filter raises or returns
    return plain


def _read_manifest(directory: Path, public_key: PublicKey | None) -> Manifest:
    path = directory / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{path} is missing: this is not a Kennel artifact. An existing state dict becomes one by "
            "`python -m training import --weights model.pth --architecture NAME --labels labels.txt`."
        )
    content = path.read_bytes()
    if public_key is not None:
        _verify_manifest(directory, content, public_key)
    try:
        stored = json.loads(content)
        version = str(stored["format_version"])
        if int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0]):
            raise BundleError(
                f"{path} has format version {version}; this image reads up to {FORMAT_VERSION}. "
                "Use a newer serving image."
            )
        return _parse_manifest(stored)
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not a usable manifest ({type(error).__name__}: {error}).") from error


def _verify_manifest(directory: Path, content: bytes, public_key: PublicKey) -> None:
    path = directory / SIGNATURE
    if not path.is_file():
        raise BundleError(
            f"{path} is missing though KENNEL_PUBLIC_KEY is set; sign the artifact by "
            f"`minisign -Sm {MANIFEST}` or unset the variable."
        )
    try:
        verify_signature(content, path.read_text(encoding="utf-8"), public_key)
    except (SignatureError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} {error}; do not trust this artifact unless you know why.") from error


def _parse_manifest(stored: Mapping[str, Any]) -> Manifest:
    optional = ("metrics", "hyperparameters", "data", "versions", "created", "explanation")
    return Manifest(
        architecture=stored["architecture"],
        labels=check_labels(stored["labels"]),
        preprocess=Preprocess.from_json(stored["preprocess"]),
        precisions={
            name: Precision(
                graph=entry["graph"],
                tolerance=float(entry["tolerance"]),
                arithmetic=entry.get("arithmetic", "f32"),
            )
            for name, entry in stored["precisions"].items()
        },
        precision_table=tuple(
            PrecisionRow(**{name: row[name] for name in PrecisionRow.__slots__ if name in row})
            for row in stored.get("precision_table", ())
        ),
        baseline=_parse_baseline(stored),
        calibration=Calibration.from_json(stored["calibration"]) if stored.get("calibration") else None,
        looks=Looks.from_json(stored["looks"]) if stored.get("looks") else None,
        files=stored["files"],
        format_version=str(stored["format_version"]),
        **{name: stored[name] for name in optional if name in stored},
    )


def _parse_baseline(stored: Mapping[str, Any]) -> Baseline | None:
    """None for artifacts from before there were baselines, or without a valid split."""
    if not stored.get("baseline"):
        return None
    return Baseline.from_json(stored["baseline"], num_classes=len(stored["labels"]))


def _checksums(directory: Path) -> dict[str, str]:
    apart = (directory / MANIFEST, directory / SIGNATURE)
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path not in apart)
    return {path.relative_to(directory).as_posix(): _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
