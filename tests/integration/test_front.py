"""The HTTP process's own short way for plain invocations: nobody can tell it from gunicorn's."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest
import requests

from artifact.baseline import build_baseline
from artifact.bundle import read_bundle, write_manifest
from artifact.preprocess import decode_pixels
from tests.bundles import encode_picture, make_tiny_bundle
from tests.servers import TIMEOUT_SECONDS, Server, running_server
from tests.waiting import wait_until

PICTURE = encode_picture("JPEG")
PLAIN = "POST /invocations HTTP/1.1"
EACH_ITS_OWN = {"Date", "Server-Timing", "X-Request-Id"}


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a baseline of the one picture that is sent."""
    directory = make_tiny_bundle(tmp_path_factory.mktemp("front") / "model", num_classes=3)
    manifest = read_bundle(directory).manifest
    pixels = np.stack([decode_pixels(PICTURE, manifest.preprocess)] * 9)
    baseline = build_baseline(pixels, np.log(np.full((9, 3), 1 / 3)))
    write_manifest(directory, replace(manifest, baseline=baseline))
    return directory


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[Server]:
    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server:
        yield server


def ask(server: Server, request_line: str, *headers: str) -> tuple[HTTPResponse, bytes]:
    """The answer to a request written out, and its body; the connection stays open or closes as it says."""
    lines = [request_line, "Host: localhost", f"Content-Length: {len(PICTURE)}", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + PICTURE)
        response = HTTPResponse(connection, method="POST")
        response.begin()
        body = response.read()
        connection.settimeout(0.3)
        try:
            is_closed = connection.recv(1) == b""
        except TimeoutError:
            is_closed = False
        assert is_closed == (response.headers["Connection"] == "close")
    return response, body


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        pytest.param("POST /invocations HTTP/1.0", (), id="http_1.0"),
        pytest.param(PLAIN, ("Connection: close",), id="close"),
        pytest.param(PLAIN, ("Expect: 100-continue",), id="asks_before_it_sends"),
        pytest.param(PLAIN, ("X-Other: 1", "X-Other: 2"), id="a_header_twice"),
        pytest.param("POST /%69nvocations HTTP/1.1", (), id="escaped_path"),
    ],
)
def test_gunicorns_own_way_answers_the_same(
    request_line: str, headers: tuple[str, ...], server: Server
) -> None:
    plain, plain_body = ask(server, PLAIN)
    other, other_body = ask(server, request_line, *headers)

    assert (other.status, other.reason, other_body) == (plain.status, plain.reason, plain_body)
    assert [name for name, _ in other.getheaders()] == [name for name, _ in plain.getheaders()]
    differing = {name for name, value in plain.getheaders() if other.headers[name] != value}
    assert differing <= EACH_ITS_OWN | {"Connection"}
    assert abs(parsedate_to_datetime(plain.headers["Date"]).timestamp() - time.time()) < 5


def test_refusal_and_request_id_come_back_the_short_way_too(server: Server) -> None:
    refused, body = ask(server, PLAIN, "Accept: text/html", "X-Request-Id: caf\xe9")

    assert (refused.status, refused.reason) == (406, "Not Acceptable")
    assert b"not_acceptable" in body
    assert refused.headers["X-Request-Id"] == "caf\xe9"


def test_access_log_tells_every_request(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running_server(tiny_bundle, GUNICORN_CMD_ARGS=f"--access-logfile {log}") as server:
        assert server.invoke(PICTURE).status_code == 200

    assert '"POST /invocations HTTP/1.1" 200' in log.read_text()


def test_artifacts_own_content_type_cannot_add_headers(tiny_bundle: Path, tmp_path: Path) -> None:
    directory = make_tiny_bundle(tmp_path / "model", num_classes=3)
    (directory / "code").mkdir()
    (directory / "code/inference.py").write_text(
        "def output_fn(prediction, accept):\n    return 'x', 'text/plain\\r\\nX-Forged: 1'\n"
    )
    with running_server(directory, KENNEL_ALLOW_CODE="1") as server:
        answer = server.invoke(PICTURE)

    assert answer.status_code == 500
    assert "X-Forged" not in answer.headers


def test_bins_of_the_last_pictures_reach_the_metrics_when_no_other_comes(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server:
        for _ in range(11):
            assert server.invoke(PICTURE).status_code == 200

        def count_pictures() -> float:
            text = requests.get(f"{server.url}/metrics", timeout=TIMEOUT_SECONDS).text
            return sum(
                float(count)
                for count in re.findall(r'kennel_drift_window\{[^}]*signal="brightness"\} (\S+)', text)
            )

        assert wait_until(lambda: count_pictures() == 11, seconds=TIMEOUT_SECONDS)
