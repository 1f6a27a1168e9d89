"""What a finished transform job left in the bucket: fetched, and scored like a local job's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from artifact.bundle import Bundle, BundleError, Manifest, open_bundle, unpack_artifact
from aws.client import Aws
from aws.instances import is_gpu
from aws.steps import PlanError, Step
from scoring.comparison import read_record
from scoring.job import score_job
from scoring.joining import build_truth
from training.progress import progress

WORKERS = 16
OUTPUTS = "outputs"


def fetch_and_score(aws: Aws, steps: Sequence[Step], output: Path, *, precision: str = "") -> dict[str, Any]:
    """The scores; report.html, scores.json and the tables lie in `output`, the `.out` files in its `outputs`.

    `precision` is what was served, where it is not what the server takes by itself.
    What is there already with the right size is not fetched again. Raises PlanError for a model that is not
    Kennel's, and where the bucket holds no outputs.
    """
    model = _request(steps, "CreateModel")
    job = _request(steps, "CreateTransformJob")
    source = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    bundle = fetch_artifact(aws, model["PrimaryContainer"]["ModelDataUrl"], output)
    keys = list_keys(aws, source)
    fetch_folder(aws, job["TransformOutput"]["S3OutputPath"], output / OUTPUTS)
    manifest = bundle.manifest
    precision = precision or expected_precision(manifest, job["TransformResources"]["InstanceType"])
    return score_job(
        output / OUTPUTS,
        build_truth(keys, manifest.labels),
        manifest.labels,
        destination=output,
        title=f"{manifest.architecture} on {PurePosixPath(source).name}",
        record=read_record(bundle, precision),
        facts={
            "architecture": manifest.architecture,
            "trained": manifest.created,
            "transform job": job["TransformJobName"],
            "instances": f"{job['TransformResources']['InstanceCount']} x "
            f"{job['TransformResources']['InstanceType']}",
        },
    )


def fetch_artifact(aws: Aws, uri: str, output: Path) -> Bundle:
    """The model's labels and what its trainer recorded. Raises PlanError."""
    archive = output / "model.tar.gz"
    fetch_object(aws, uri, archive)
    try:
        unpack_artifact(archive, output / "model")
        return open_bundle(output / "model")
    except BundleError as error:
        raise PlanError(
            f"{uri} cannot be scored against: {error} The outputs are in the bucket all the same."
        ) from error


def list_keys(aws: Aws, uri: str) -> dict[str, int]:
    """Key below the folder -> bytes, hidden ones left out. Raises PlanError where there is none."""
    bucket, prefix = _split(uri.rstrip("/") + "/")
    pages = aws.pages("s3", "ListObjectsV2", {"Bucket": bucket, "Prefix": prefix})
    sizes = {
        entry["Key"].removeprefix(prefix): entry["Size"]
        for page in pages
        for entry in page.get("Contents", ())
    }
    shown = {
        key: size for key, size in sizes.items() if not any(p.startswith(".") for p in key.split("/")) and key
    }
    if not shown:
        raise PlanError(f"Nothing lies under {uri}.")
    return shown


def fetch_folder(aws: Aws, uri: str, folder: Path) -> None:
    """Every object below the address, in parallel. Raises PlanError for a key that leaves the folder."""
    sizes = list_keys(aws, uri)
    for key in sizes:
        if key.startswith("/"):  # `..` counts as hidden
            raise PlanError(f"{uri} holds the key {key!r}, which reaches outside {folder}.")
    missing = [key for key, size in sizes.items() if _size(folder / key) != size]

    def fetch(key: str) -> None:
        fetch_object(aws, f"{uri.rstrip('/')}/{key}", folder / key)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for _ in progress(pool.map(fetch, missing), total=len(missing), what="fetch"):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def fetch_object(aws: Aws, uri: str, path: Path) -> None:
    """One object; a file half written has another name."""
    bucket, key = _split(uri)
    body = aws.call("s3", "GetObject", {"Bucket": bucket, "Key": key})["Body"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        for chunk in body.iter_chunks(1 << 20):
            file.write(chunk)
    partial.replace(path)


def expected_precision(manifest: Manifest, instance_type: str) -> str:
    """What the server takes by itself: the fastest that was kept, of those the machine computes natively.

    The outputs do not name it. CPU types without native bf16 (before the 7th generation) serve fp32 where
    int8 was refused: `--precision fp32` says so. The GPU image serves bf16 and fp32.
    """
    native = ("bf16", "fp32") if is_gpu(instance_type) else ("int8", "bf16", "fp32")
    speedups = {
        row.precision: row.speedup or 0.0
        for row in manifest.precision_table
        if row.kept and row.precision in native and row.precision in manifest.precisions
    }
    return max(speedups, key=speedups.__getitem__, default=next(iter(manifest.precisions)))


def _request(steps: Sequence[Step], operation: str) -> Mapping[str, Any]:
    return next(step.request for step in steps if step.operation == operation)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
