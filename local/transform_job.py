"""A Batch Transform job of Kennel's server over a folder, and the score of what it answered."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.bundle import MANIFEST, Bundle, open_bundle
from local.endpoint import open_artifact, start_endpoint
from local.invoking import Address
from local.transform_driver import Transformed, transform_with
from local.transform_input import list_input
from local.transform_request import TransformRequest, parse_transform_request
from scoring.comparison import read_record
from scoring.job import score_job
from scoring.joining import Truth, build_truth, read_truth

CONTENT_TYPE = "application/x-image"  # one for the whole job: the container looks at the bytes
SHAPING_SETTINGS = ("KENNEL_ENGINE", "KENNEL_PRECISION")  # of the server's, those that change its answers


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformResult:
    """What a scored job left behind."""

    scores: dict[str, Any]
    report: Path
    failed: dict[str, str]  # path -> reason


def run_transform_job(
    artifact: Path,
    *,
    input_dir: Path,
    output_dir: Path,
    max_concurrent: int | None = None,
    image: str | None = None,
    fields: Mapping[str, Any] = {},
    labels: Path | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
) -> TransformResult:
    """Transform by Kennel's server, a process or the container of `image`, and score what it answered.

    `fields` are more of CreateTransformJob's. Failed objects get no .out and are listed; the others are kept.
    `labels` is a folder or CSV with the truth, where the input's own folders do not tell it.
    Raises LocalError where there is nothing to transform, or the server does not start or go on.
    """
    request = parse_transform_request(
        build_request(input_dir, output_dir, max_concurrent=max_concurrent, fields=fields)
    )
    with tempfile.TemporaryDirectory(prefix="kennel-model-") as scratch:
        model_dir = open_artifact(artifact, Path(scratch))
        bundle = open_bundle(model_dir)

        @contextmanager
        def start(environment: Mapping[str, str]) -> Iterator[Address]:
            with start_endpoint(model_dir, environment=environment, image=image) as endpoint:
                process = endpoint.process
                yield Address(
                    endpoint.host, endpoint.port, lambda: process.poll() is None, endpoint.precision
                )

        model = _identify_model(bundle, image)
        result = transform_with(request, start, model=model, retry_failed=retry_failed, fresh=fresh)
        return _score(request, bundle, result, labels)


def build_request(
    input_dir: Path,
    output_dir: Path,
    *,
    max_concurrent: int | None = None,
    fields: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """CreateTransformJob's form for a folder of images; `fields` go in on top, section by section."""
    request: dict[str, Any] = {
        "TransformInput": {
            "ContentType": CONTENT_TYPE,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": str(input_dir)}},
        },
        "TransformOutput": {"S3OutputPath": str(output_dir)},
    }
    if max_concurrent:
        request["MaxConcurrentTransforms"] = max_concurrent
    return _merge(request, fields)


def _merge(request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(request)
    for name, value in fields.items():
        inner = merged.get(name, {})
        is_section = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(inner, value) if is_section else value
    return merged


def _identify_model(bundle: Bundle, image: str | None) -> dict[str, str]:
    """What the answers depend on beside the request: manifest.json holds the checksum of every other file."""
    settings = {name: os.environ[name] for name in SHAPING_SETTINGS if name in os.environ}
    manifest = hashlib.sha256(bundle.path(MANIFEST).read_bytes()).hexdigest()
    return {"manifest": manifest, "image": image or "", **settings}


def _truth_of_objects(request: TransformRequest, labels: Sequence[str]) -> Truth:
    """Each object is an image, its first folder the label; records of split objects have no truth here."""
    if request.split != "None":
        return Truth({})
    paths = [item.key for item in list_input(request)]
    is_folder = request.source.is_dir()
    return build_truth(paths, labels, images_dir=request.source if is_folder else None)


def _score(
    request: TransformRequest, bundle: Bundle, result: Transformed, labelled: Path | None
) -> TransformResult:
    """report.html, scores.json and the tables beside the outputs."""
    manifest, output = bundle.manifest, request.destination
    truth = read_truth(labelled, manifest.labels) if labelled else _truth_of_objects(request, manifest.labels)
    scores = score_job(
        output,
        truth,
        manifest.labels,
        destination=output,
        title=f"{manifest.architecture} on {request.source.name}",
        record=read_record(bundle, result.precision),
        images_dir=truth.images_dir,
        facts={
            "architecture": manifest.architecture,
            "classes": str(len(manifest.labels)),
            "trained": manifest.created,
        },
    )
    return TransformResult(scores=scores, report=output / "report.html", failed=result.failed)
