"""The programs of examples/clients, each run as it is before a real server; only the port is another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from local.endpoint import Endpoint, start_endpoint
from local.platform import REPOSITORY
from tests.bundles import encode_picture, make_cnn_bundle

CLIENTS = REPOSITORY / "examples/clients"
PROGRAMS = {".py": [sys.executable], ".sh": ["bash"], ".mjs": ["node"]}
AWS = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    bundle = make_cnn_bundle(tmp_path_factory.mktemp("clients") / "model")
    with start_endpoint(bundle, environment={"KENNEL_WORKERS": "1"}) as endpoint:
        yield endpoint


@pytest.mark.parametrize("path", sorted(CLIENTS.iterdir()), ids=lambda path: path.name)
def test_client_tells_the_likeliest_label(path: Path, server: Endpoint, tmp_path: Path) -> None:
    if shutil.which(PROGRAMS[path.suffix][0]) is None:
        pytest.skip(f"{PROGRAMS[path.suffix][0]} is not installed")
    body = encode_picture("JPEG")
    (tmp_path / "picture.jpg").write_bytes(body)
    program = tmp_path / path.name
    program.write_text(path.read_text().replace("http://127.0.0.1:8080", server.url))

    done = subprocess.run(
        [*PROGRAMS[path.suffix], program],
        cwd=tmp_path,
        env=os.environ | AWS,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    accept = {"Accept": "application/json; top=1"}
    told = requests.post(f"{server.url}/invocations", body, headers=accept, timeout=30).json()["predictions"][
        0
    ]
    first = done.stdout.replace("}", "\n").splitlines()[0]
    assert told["label"] in first
    assert f"{told['probability']:.3f}"[:4] in first
