"""Start after start under immediate load: does one ever hang?

    python -m benchmarks.serving.starts MODEL_DIR PICTURE [--starts 500]

OpenVINO's Python binding can deadlock when the first inferences of a process run concurrently (2 of 30 starts
of a threaded server). Here eight clients knock from the first moment on, until each has three answers. The
last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from local.platform import REPOSITORY, container_environment, free_port, serving_python

CLIENTS = 8
ANSWERS = 3  # that each client waits for
HANG_SECONDS = 30.0


def main() -> None:
    """Exit code 1 where a start hung."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--starts", type=int, default=500)
    options = parser.parse_args()
    body = options.picture.read_bytes()
    seconds = []
    hung = 0
    for _ in tqdm(range(options.starts), unit="start"):
        took = start_once(options.model_dir, body)
        hung += took is None
        seconds += [took] if took is not None else []
    found = {"starts": options.starts, "hung": hung}
    if seconds:
        found |= {"median_seconds": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)}
    print(json.dumps(found))
    sys.exit(hung > 0)


def start_once(model_dir: Path, body: bytes) -> float | None:
    """Seconds until every client had its answers; None after HANG_SECONDS."""
    port = free_port()
    settings = {"KENNEL_MODEL_DIR": str(model_dir.resolve()), "SAGEMAKER_BIND_TO_PORT": str(port)}
    started = time.monotonic()
    server = subprocess.Popen(
        [REPOSITORY / "container/serve"],
        env=container_environment(serving_python(), **settings),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with ThreadPoolExecutor(CLIENTS) as clients:
            answered = list(clients.map(lambda _: knock(port, body, started + HANG_SECONDS), range(CLIENTS)))
        return time.monotonic() - started if all(answered) else None
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def knock(port: int, body: bytes, deadline: float) -> bool:
    """Whether ANSWERS came in time."""
    answers = 0
    while answers < ANSWERS and time.monotonic() < deadline:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)) as connection:
                while answers < ANSWERS:
                    connection.request("POST", "/invocations", body)
                    response = connection.getresponse()
                    response.read()
                    answers += response.status == 200
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
    return answers == ANSWERS


if __name__ == "__main__":
    main()
