"""Time from `docker run` to the first 200 on /ping.

    python -m benchmarks.start_time ARTIFACT_DIR ... [--image kennel/serving-cpu:local] [--runs 10]

Prints a line per artifact and, last, JSON: {artifact: {"minimum", "median", "maximum"}} in seconds.
ARTIFACT_DIR is an unpacked bundle, as SageMaker mounts it. KENNEL_* variables reach the server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from local.container import Container, removed_at_the_end
from local.platform import free_port


def main() -> None:
    """Measure alone on the machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--image", default="kennel/serving-cpu:local")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    result = {}
    for artifact in options.artifacts:
        seconds = sorted(measure(artifact, options.image) for _ in range(options.runs))
        result[str(artifact)] = {
            "minimum": round(seconds[0], 2),
            "median": round(statistics.median(seconds), 2),
            "maximum": round(seconds[-1], 2),
        }
        print(artifact, result[str(artifact)], flush=True)
    print(json.dumps(result))


def measure(artifact: Path, image: str) -> float:
    """One start, in seconds."""
    port = free_port()
    container = Container(
        image=image,
        arguments=("serve",),
        environment={name: value for name, value in os.environ.items() if name.startswith("KENNEL_")},
        mounts={"/opt/ml/model:ro": artifact},
        publish=port,
    )
    with removed_at_the_end(container):
        started = time.monotonic()
        process = subprocess.Popen(container.command(), stderr=subprocess.DEVNULL)
        while not is_healthy(port):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with exit code {process.returncode}")
            time.sleep(0.01)
        seconds = time.monotonic() - started
        process.terminate()
        process.wait()
    return seconds


def is_healthy(port: int) -> bool:
    """One GET /ping."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
