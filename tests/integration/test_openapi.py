"""schemathesis against the running server's own /openapi.json: what fits it gets what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.bundles import make_tiny_bundle
from tests.servers import start_server, wait_for_ping

TIMEOUT_SECONDS = 240


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, port = start_server(
        make_tiny_bundle(tmp_path_factory.mktemp("openapi") / "model"), KENNEL_WORKERS="1"
    )
    try:
        wait_for_ping(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_server_keeps_what_its_openapi_document_promises(url: str, tmp_path: Path) -> None:
    assert requests.get(f"{url}/openapi.json", timeout=10).status_code == 200

    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{url}/openapi.json",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=50",
            "--seed=1",
            "--no-color",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-6000:]
