"""Transform jobs against the reference container, for tests: one real server process per instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.invoking import Address
from local.platform import LocalError, free_port, stop_process
from local.transform_driver import Transformed, running_server, transform_with
from local.transform_request import parse_transform_request

SERVER = Path(__file__).with_name("reference_container.py")
MEBIBYTE = 2**20
CSV = {"ContentType": "text/csv", "SplitType": "Line", "AssembleWith": "Line"}
LINES = {"ContentType": "application/jsonlines", "SplitType": "Line", "AssembleWith": "Line"}
SINGLE = {"BatchStrategy": "SingleRecord"}
ROWS = b"1,2\n3,4\n5,6\n"


@dataclass(frozen=True)
class Workplace:
    """A job's folders and what the server was asked."""

    root: Path

    @property
    def input(self) -> Path:
        return self.root / "in"

    @property
    def output(self) -> Path:
        return self.root / "out"

    def write(self, files: Mapping[str, bytes]) -> None:
        """Objects of the input."""
        for key, content in files.items():
            (self.input / key).parent.mkdir(parents=True, exist_ok=True)
            (self.input / key).write_bytes(content)

    def answers(self) -> dict[str, bytes]:
        """Key + .out -> content."""
        return {
            path.relative_to(self.output).as_posix(): path.read_bytes()
            for path in self.output.rglob("*")
            if path.is_file() and path.suffix == ".out"
        }

    def requests(self) -> list[dict[str, Any]]:
        """In the order they came."""
        log = self.root / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def bodies(self) -> list[str]:
        """Of all requests, sorted."""
        return sorted(request["body"] for request in self.requests())

    def request(self, **fields: Any) -> dict[str, Any]:
        """CreateTransformJob's form; a field goes to its place by its name."""
        source = {"S3DataType": "S3Prefix", "S3Uri": f"file://{self.input}"}
        request: dict[str, Any] = {
            "TransformInput": {"ContentType": "application/x-image", "DataSource": {"S3DataSource": source}},
            "TransformOutput": {"S3OutputPath": str(self.output)},
            "TransformResources": {"InstanceCount": 1},
            "ModelClientConfig": {},
            "DataProcessing": {},
        }
        places = {
            **dict.fromkeys(("S3DataType", "S3Uri"), source),
            **dict.fromkeys(("ContentType", "SplitType", "CompressionType"), request["TransformInput"]),
            **dict.fromkeys(("Accept", "AssembleWith", "S3OutputPath"), request["TransformOutput"]),
            "InstanceCount": request["TransformResources"],
            **dict.fromkeys(
                ("InvocationsTimeoutInSeconds", "InvocationsMaxRetries"), request["ModelClientConfig"]
            ),
            **dict.fromkeys(("InputFilter", "OutputFilter", "JoinSource"), request["DataProcessing"]),
        }
        for name, value in fields.items():
            places.get(name, request)[name] = value
        return request

    def run(
        self,
        *,
        server: Mapping[str, str] = {},
        retry_failed: bool = False,
        fresh: bool = False,
        **fields: Any,
    ) -> Transformed:
        """One job, with a server of its own for each instance; `server` is added to their environment."""

        @contextmanager
        def start(environment: Mapping[str, str]) -> Iterator[Address]:
            with start_reference(self.root / "log", {**environment, **server}) as address:
                yield address

        request = parse_transform_request(self.request(**fields))
        return transform_with(request, start, retry_failed=retry_failed, fresh=fresh)


def latin(*bodies: bytes) -> list[str]:
    """As the reference container logs them, sorted."""
    return sorted(body.decode("latin-1") for body in bodies)


@contextmanager
def start_reference(log: Path, environment: Mapping[str, str]) -> Iterator[Address]:
    """A reference container that answers."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if "SAGEMAKER" not in name}
    with subprocess.Popen(
        [sys.executable, "-S", "-E", str(SERVER)],
        env={**inherited, **environment, "SAGEMAKER_BIND_TO_PORT": str(port), "REFERENCE_LOG": str(log)},
    ) as process:
        try:
            yield _when_ready(process, port)
        finally:
            stop_process(process, grace_seconds=5)


def _when_ready(process: subprocess.Popen[bytes], port: int) -> Address:
    for _ in range(400):
        try:
            with running_server(f"http://127.0.0.1:{port}") as address:
                return Address(address.host, address.port, lambda: process.poll() is None)
        except LocalError:
            assert process.poll() is None, "the reference container ended"
            time.sleep(0.025)
    raise AssertionError("the reference container did not answer /ping")
