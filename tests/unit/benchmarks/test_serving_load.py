"""The load generators: wrk's script and output, and the open loop against a real small server."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.serving.load import MARK, LoadError, parse_wrk, write_script
from benchmarks.serving.open_loop import percentile, run_open_loop
from benchmarks.serving.requests import Request, base64_request, raw_request, v2_request

NUMBERS = {
    "requests": 400,
    "microseconds": 4_000_000,
    "p50": 19_000,
    "p99": 31_000,
    "p999": 45_000,
    "bad_status": 0,
    "socket_errors": 0,
}


def wrk_output(**numbers: int) -> str:
    return f"Running 4s test\n  400 requests in 4.00s\n{MARK}{json.dumps(NUMBERS | numbers)}\n"


@contextmanager
def small_server(*, status: int = 200, stall_seconds: float = 0.0, hangs_up: bool = False) -> Iterator[int]:
    """Answers POSTs with `status`; the first one takes `stall_seconds` and holds up all others.

    One that hangs up does so after each answer, without a word of it.
    """
    turn, stalls = threading.Lock(), [stall_seconds]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with turn:
                time.sleep(stalls.pop() if stalls else 0.0)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            self.close_connection = hangs_up

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_wrk_numbers_are_read_in_seconds_and_milliseconds() -> None:
    closed = parse_wrk(wrk_output())

    assert closed.per_second == 100.0
    assert (closed.p50_ms, closed.p99_ms, closed.p999_ms) == (19.0, 31.0, 45.0)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        pytest.param(wrk_output(bad_status=3), "3 had a bad status", id="status"),
        pytest.param(wrk_output(socket_errors=2), "2 socket errors", id="socket"),
        pytest.param("unable to connect", "no result", id="no_line"),
    ],
)
def test_failed_requests_are_no_measurement(output: str, why: str) -> None:
    with pytest.raises(LoadError, match=why):
        parse_wrk(output)


def test_closed_connections_are_no_errors_where_closing_was_asked_for() -> None:
    assert parse_wrk(wrk_output(socket_errors=400), keep_alive=False).requests == 400
    with pytest.raises(LoadError):
        parse_wrk(wrk_output(socket_errors=400, bad_status=1), keep_alive=False)


def test_script_sends_method_headers_and_body_and_closes_only_when_told() -> None:
    request = raw_request("/invocations", b"jpeg")

    kept, closing = (
        write_script(request, Path("/tmp/body"), keep_alive=keep_alive) for keep_alive in (True, False)
    )

    assert "wrk.method = 'POST'" in kept
    assert "wrk.headers['Content-Type'] = 'image/jpeg'" in kept
    assert "io.open('/tmp/body', \"rb\")" in kept
    assert "Connection" not in kept
    assert "wrk.headers['Connection'] = 'close'" in closing


def test_json_requests_hold_the_picture() -> None:
    plain, v2 = (json.loads(build("/x", b"\xff\xd8").body) for build in (base64_request, v2_request))

    assert base64.b64decode(plain["image"]) == b"\xff\xd8"
    assert base64.b64decode(v2["inputs"][0]["data"][0]) == b"\xff\xd8"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param(range(1, 101), 50, 50, id="median"),
        pytest.param(range(1, 101), 99, 99, id="p99"),
        pytest.param(range(1, 101), 99.9, 100, id="p999_of_few_is_the_largest"),
        pytest.param([7], 50, 7, id="one"),
        pytest.param([3, 1, 2], 1, 1, id="unsorted"),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(list(values), percent) == expected


def test_open_loop_charges_a_stall_to_every_request_that_was_due_meanwhile() -> None:
    request = Request(path="/", body=b"x")

    with small_server(stall_seconds=0.5) as port:
        opened = run_open_loop(port, request, rate=40, seconds=1.0)

    assert opened.requests == 40
    # A closed loop on one connection would have seen a single slow request.
    assert opened.p99_ms > 400
    assert opened.p50_ms > 10


def test_open_loop_asks_again_where_the_server_had_hung_up_before() -> None:
    with small_server(hangs_up=True) as port:
        opened = run_open_loop(port, Request(path="/", body=b"x"), rate=50, seconds=0.4)

    assert opened.requests == 20


def test_open_loop_refuses_answers_that_are_not_200() -> None:
    with small_server(status=503) as port, pytest.raises(LoadError, match="503"):
        run_open_loop(port, Request(path="/", body=b"x"), rate=50, seconds=0.1)
