"""A folder of images into the bucket: in parallel, with checksums, going on where it was interrupted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from aws.client import Aws
from aws.convergence import is_absent
from aws.errors import AwsError
from aws.steps import PlanError
from training.job import JobError, find_splits
from training.progress import progress

WORKERS = 16
MAX_OBJECT_BYTES = 5 * 1024**3  # PutObject; images and artifacts are far from it
CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What an upload did."""

    sent: int
    kept: int  # there already, with the same checksum
    sent_bytes: int


def plan_upload(folder: Path, prefix: str) -> dict[str, Path]:
    """Key -> file. Folders of splits get their canonical names (validation -> valid). Raises PlanError."""
    if not folder.is_dir():
        raise PlanError(f"There is no folder {folder} to upload.")
    files = {f"{prefix}/{name}": file for name, file in sorted(_named(folder))}
    if not files:
        raise PlanError(f"{folder} holds no files.")
    large = [file for file in files.values() if file.stat().st_size > MAX_OBJECT_BYTES]
    if large:
        raise PlanError(f"{large[0]} is larger than 5 GiB, which one request cannot carry; leave it out.")
    return files


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    inside = {path.name: path for path in folder.iterdir() if path.is_dir()}
    try:
        roots = {split: path for split, path in find_splits(inside).items() if path.parent == folder}
    except JobError:
        roots = {}
    for root, place in ((path, split) for split, path in roots.items()) if roots else ((folder, ""),):
        for file in root.rglob("*"):
            parts = file.relative_to(root).parts
            if file.is_file() and not any(part.startswith(".") for part in parts):
                yield "/".join((place, *parts) if place else parts), file


def upload(aws: Aws, bucket: str, files: Mapping[str, Path]) -> Uploaded:
    """Sends what is not there with the same SHA-256; S3 checks it on arrival. Safe to repeat at any point."""
    aws.call("s3", "HeadBucket", {"Bucket": bucket})  # and the client is made before there are threads
    sent = kept = sent_bytes = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(_send, aws, bucket, key, file) for key, file in files.items()]
        try:
            for future in progress(as_completed(futures), total=len(futures), what="upload"):
                size = future.result()
                sent += size is not None
                kept += size is None
                sent_bytes += size or 0
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Uploaded(sent=sent, kept=kept, sent_bytes=sent_bytes)


def _send(aws: Aws, bucket: str, key: str, file: Path) -> int | None:
    """Bytes sent; None where the object is there already."""
    body = file.read_bytes()
    digest = hashlib.sha256(body)
    if _stored_checksum(aws, bucket, key) == digest.hexdigest():
        return None
    aws.call(
        "s3",
        "PutObject",
        {
            "Bucket": bucket,
            "Key": key,
            "Body": body,
            "ContentType": CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream"),
            "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
            "Metadata": {"sha256": digest.hexdigest()},
        },
    )
    return len(body)


def _stored_checksum(aws: Aws, bucket: str, key: str) -> str:
    try:
        answer = aws.call("s3", "HeadObject", {"Bucket": bucket, "Key": key})
    except AwsError as error:
        if is_absent(error):
            return ""
        raise
    return str(answer.get("Metadata", {}).get("sha256", ""))
