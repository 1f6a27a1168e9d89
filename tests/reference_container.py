"""A container that keeps SageMaker's contract and shows what it was asked: no model; answers tell requests.

Run by tests as a process, with SAGEMAKER_BIND_TO_PORT, REFERENCE_LOG (one JSON line per request),
REFERENCE_PARAMETERS (body of /execution-parameters; without it 404) and REFERENCE_STATUS (of that). Words in
a body are faults: bad (400), boom (500), busy (503 twice), drop (breaks the connection once), slow (2 s), die
(the process ends), wait (a tenth of a second, to see how many come at a time).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOCK = threading.Lock()
SEEN: Counter[bytes] = Counter()
IN_FLIGHT = [0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.answer(200, b"")
        elif self.path == "/execution-parameters" and "REFERENCE_PARAMETERS" in os.environ:
            status = int(os.environ.get("REFERENCE_STATUS", "200"))
            self.answer(status, os.environ["REFERENCE_PARAMETERS"].encode())
        else:
            self.answer(404, b"")

    def do_POST(self) -> None:
        body = self.read_body()
        with LOCK:
            IN_FLIGHT[0] += 1
            SEEN[body] += 1
            times = SEEN[body]
            self.record(body)
        try:
            self.act(body, times)
        finally:
            with LOCK:
                IN_FLIGHT[0] -= 1

    def act(self, body: bytes, times: int) -> None:
        if b"die" in body:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"drop" in body and times == 1:
            self.close_connection = True
            return
        time.sleep(2.0 if b"slow" in body else 0.1 if b"wait" in body else 0)
        faults = {b"bad": 400, b"boom": 500} | ({b"busy": 503} if times <= 2 else {})
        for word, status in faults.items():
            if word in body:
                return self.answer(status, b"no " + word)
        self.answer(200, answer_to(body, self.headers.get("Content-Type", "")))

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def record(self, body: bytes) -> None:
        entry = {
            "body": body.decode("latin-1"),
            "content_type": self.headers.get("Content-Type"),
            "accept": self.headers.get("Accept"),
            "transfer": self.headers.get("Transfer-Encoding"),
            "in_flight": IN_FLIGHT[0],
            "pid": os.getpid(),
            "client": self.client_address[1],
            "server": os.environ["SAGEMAKER_BIND_TO_PORT"],
            "environment": {name: value for name, value in os.environ.items() if "SAGEMAKER_" in name},
        }
        with Path(os.environ["REFERENCE_LOG"]).open("a") as log:
            log.write(json.dumps(entry) + "\n")


def answer_to(body: bytes, content_type: str) -> bytes:
    """CSV: each row's sum. JSON: what was got. Anything else: the body between angle brackets."""
    lines = body.decode("latin-1").splitlines()
    if content_type == "text/csv":
        sums = [str(sum(float(cell) for cell in line.split(","))) for line in lines if "short" not in line]
        return "\n".join(sums).encode()
    if content_type == "application/jsonlines":
        values = [json.loads(line) for line in lines]
        counts = [len(value) if isinstance(value, list | dict) else 1 for value in values]
        return "".join(json.dumps({"n": count}) + "\n" for count in counts).encode()
    if content_type == "application/json":
        return json.dumps({"got": json.loads(body)}).encode()
    return b"<" + body + b">"


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
