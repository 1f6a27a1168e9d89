"""Real servers for tests: container/serve, its processes, and requests that are still on their way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    port: int
    process: subprocess.Popen[str]

    def invoke(self, body: bytes, **headers: str) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"{self.url}/invocations", data=body, headers=headers, timeout=TIMEOUT_SECONDS)


def start_server(model_dir: Path, **environ: str) -> tuple[subprocess.Popen[str], int]:
    """container/serve from another directory: python by PATH, packages by PYTHONPATH."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [REPOSITORY / "container/serve"],
        cwd="/",
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "KENNEL_MODEL_DIR": str(model_dir),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            **environ,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, port


def wait_for_ping(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/ping", timeout=TIMEOUT_SECONDS).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no /ping; the server said: {process.communicate()[1]}")


@contextmanager
def running_server(model_dir: Path, **environ: str) -> Iterator[Server]:
    process, port = start_server(model_dir, **environ)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_ping(url, process)
        yield Server(url, port, process)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_SECONDS)


@contextmanager
def half_sent_request(server: Server, body: bytes, *, pause: float = 0.2) -> Iterator[socket.socket]:
    """A POST whose second half is still to come: a request in flight for as long as the test needs."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_SECONDS) as connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
        time.sleep(pause)  # so that the server has it in hand
        yield connection


def finish_request(connection: socket.socket, body: bytes) -> bytes:
    connection.sendall(body[len(body) // 2 :])
    return connection.recv(65536)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_predicting(pid: int) -> bool:
    return b"serving.inference" in Path(f"/proc/{pid}/cmdline").read_bytes()


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [one for child in children for one in descendants_of(child)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
