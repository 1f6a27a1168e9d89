"""A Batch Transform job: every file under a prefix is one request; its answer lies in `<relative path>.out`.

Then the outputs are scored against the folder names. The rest of the service's behaviour (splitting, filters,
manifests, several instances) is not acted out here yet.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifact.bundle import Manifest, read_test_predictions
from local.endpoint import Endpoint, start_endpoint
from local.platform import LocalError
from scoring.items import read_outputs
from scoring.report import write_report
from scoring.scores import compare_with_trainer, score, write_scores
from training.progress import progress

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-image"  # one for the whole job: the container looks at the bytes
MAX_RETRIES = 3  # ModelClientConfig.InvocationsMaxRetries' default
TIMEOUT_SECONDS = 600  # InvocationsTimeoutInSeconds' default
DEFAULT_PARAMETERS = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformResult:
    """What a job left behind."""

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
) -> TransformResult:
    """Transform and score. Failed objects get no .out and are listed; the others are kept.

    With `image` the server is a container. Raises LocalError where there is nothing to transform or the
    server does not start.
    """
    paths = list_objects(input_dir)
    with start_endpoint(artifact, environment={"SAGEMAKER_BATCH": "true"}, image=image) as endpoint:
        parameters = DEFAULT_PARAMETERS | _read_execution_parameters(endpoint)
        if max_concurrent:
            parameters["MaxConcurrentTransforms"] = max_concurrent
        started = time.monotonic()
        failed = _transform(endpoint, paths, input_dir, output_dir, parameters)
        seconds = time.monotonic() - started
        logger.info(
            "objects=%d failed=%d seconds=%.1f images_per_second=%.1f",
            len(paths),
            len(failed),
            seconds,
            len(paths) / seconds,
        )
        return _score(endpoint, input_dir, output_dir, failed)


def list_objects(input_dir: Path) -> list[str]:
    """Every file under the prefix, as posix paths relative to it, sorted; hidden files are not sent."""
    if not input_dir.is_dir():
        raise LocalError(f"There is no folder {input_dir} to transform.")
    paths = sorted(
        path.relative_to(input_dir).as_posix()
        for path in input_dir.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(input_dir).parts)
    )
    if not paths:
        raise LocalError(f"{input_dir} holds no files to transform.")
    return paths


def _read_execution_parameters(endpoint: Endpoint) -> dict[str, int]:
    """GET /execution-parameters; a container without the route takes SageMaker's defaults."""
    with closing(http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)) as connection:
        connection.request("GET", "/execution-parameters")
        response = connection.getresponse()
        body = response.read()
    return json.loads(body) if response.status == http.HTTPStatus.OK else {}


def _transform(
    endpoint: Endpoint, paths: Sequence[str], input_dir: Path, output_dir: Path, parameters: dict[str, int]
) -> dict[str, str]:
    """Send every object; returns the failed ones with the reason."""
    limit_bytes = parameters["MaxPayloadInMB"] * 2**20
    failed: dict[str, str] = {}
    clients = _Clients(endpoint)

    def transform(path: str) -> None:
        output = output_dir / f"{path}.out"
        output.unlink(missing_ok=True)  # an answer of an earlier run must not stand for this one
        body = (input_dir / path).read_bytes()
        if len(body) > limit_bytes:
            raise LocalError(f"{len(body)} bytes are over MaxPayloadInMB={parameters['MaxPayloadInMB']}")
        answer = clients.invoke(body)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_suffix(".partial")
        partial.write_bytes(answer)
        partial.replace(output)

    with ThreadPoolExecutor(parameters["MaxConcurrentTransforms"]) as pool, closing(clients):
        futures = {pool.submit(transform, path): path for path in paths}
        for future in progress(as_completed(futures), total=len(futures), what="transform"):
            try:
                future.result()
            except (LocalError, OSError) as error:
                failed[futures[future]] = str(error)
    return failed


class _Clients:
    """A kept-alive connection per thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def invoke(self, body: bytes) -> bytes:
        """POST /invocations, again after a broken connection or a 5xx. Raises LocalError with the answer."""
        reason = ""
        for _ in range(1 + MAX_RETRIES):
            connection = self._connection()
            try:
                connection.request("POST", "/invocations", body, {"Content-Type": CONTENT_TYPE})
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()  # reconnects at the next request
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.status == http.HTTPStatus.OK:
                return answer
            reason = f"{response.status} {answer[:300].decode(errors='replace')}"
            if response.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        raise LocalError(reason)

    def close(self) -> None:
        """Close every thread's connection."""
        for connection in self._connections:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(
                self._endpoint.host, self._endpoint.port, timeout=TIMEOUT_SECONDS
            )
            self._connections.append(self._local.connection)
        connection: http.client.HTTPConnection = self._local.connection
        return connection


def _trainer_metrics(manifest: Manifest, precision: str) -> dict[str, float]:
    """What the trainer measured of this precision on its test split; empty where it did not."""
    for row in manifest.precision_table:
        if row.precision == precision and row.test_top1_accuracy is not None:
            return {"top1_accuracy": row.test_top1_accuracy}
    return manifest.metrics.get("test", {}) if precision == "fp32" else {}


def _score(endpoint: Endpoint, input_dir: Path, output_dir: Path, failed: dict[str, str]) -> TransformResult:
    """scores.json and report.html beside the outputs."""
    manifest = endpoint.bundle.manifest
    items = [
        replace(item, error=failed[item.path]) if item.path in failed else item
        for item in read_outputs(input_dir, output_dir, manifest.labels)
    ]
    recorded = {
        row.path: (row.predicted, row.log_probability)
        for row in read_test_predictions(endpoint.bundle.directory)
        if row.precision == endpoint.precision
    }
    scores = score(items, manifest.labels)
    scores["comparison"] = compare_with_trainer(
        items,
        manifest.labels,
        trainer_predictions=recorded,
        trainer_metrics=_trainer_metrics(manifest, endpoint.precision),
    )
    write_scores(scores, output_dir / "scores.json")
    report = output_dir / "report.html"
    write_report(
        scores,
        report,
        title=f"{manifest.architecture} on {input_dir.name}",
        images_dir=input_dir,
        facts={
            "architecture": manifest.architecture,
            "precision": endpoint.precision,
            "classes": str(len(manifest.labels)),
            "trained": manifest.created,
        },
    )
    return TransformResult(scores=scores, report=report, failed=failed)
