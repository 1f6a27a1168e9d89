"""The same job by Kennel and by the usual server, timed from outside: start, objects, the last .out file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.servers import SERVERS, run_server
from local.endpoint import start_endpoint
from local.invoking import Address
from local.transform_driver import Start, transform_with
from local.transform_job import build_request
from local.transform_request import parse_transform_request

LINES = {
    "TransformInput": {"ContentType": "application/jsonlines", "SplitType": "Line"},
    "TransformOutput": {"Accept": "application/jsonlines", "AssembleWith": "Line"},
    "BatchStrategy": "MultiRecord",
    "MaxPayloadInMB": 2,  # some dozen pictures: with the largest requests the last one keeps one core waiting
}


class JobError(RuntimeError):
    """The job did not do all of its work, so its speed means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A finished job."""

    images: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Of the whole job, the server's start included."""
        return self.images / self.seconds


def kennel(model_dir: Path) -> Start:
    """Our server, as `python -m local transform` starts it."""

    @contextmanager
    def start(environment: Mapping[str, str]) -> Iterator[Address]:
        with start_endpoint(model_dir, environment=environment) as endpoint:
            process = endpoint.process
            yield Address(endpoint.host, endpoint.port, lambda: process.poll() is None, endpoint.precision)

    return start


def flask(model_dir: Path, picture: bytes) -> Start:
    """The usual sample: Flask, gunicorn and eager torch."""

    @contextmanager
    def start(environment: Mapping[str, str]) -> Iterator[Address]:
        with run_server(SERVERS["flask"], model_dir, picture) as running:
            yield Address("127.0.0.1", running.port)

    return start


def run_job(start: Start, source: Path, output: Path, *, images: int, fields: Mapping[str, Any]) -> Timed:
    """Raises JobError where an object failed."""
    shutil.rmtree(output, ignore_errors=True)
    request = parse_transform_request(build_request(source, output, fields=fields))
    started = time.monotonic()
    result = transform_with(request, start)
    seconds = time.monotonic() - started
    if result.failed:
        key, reason = next(iter(result.failed.items()))
        raise JobError(f"{len(result.failed)} of {result.num_objects} objects failed; {key}: {reason}")
    return Timed(images=images, seconds=seconds)
