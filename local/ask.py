"""Runs inside a serving container, even one without a network: `docker exec -i NAME python - DIR < ask.py`.

Waits for /ping, posts every file under DIR and prints {"path": answer, ...}. Standard library only.
"""

import http.client
import json
import sys
import time
from pathlib import Path

DEADLINE_SECONDS = 60


def main(folder: Path) -> None:
    """Exit code 1 with a sentence where the server does not answer as it should."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_healthy():
        if time.monotonic() > deadline:
            sys.exit(f"/ping did not answer 200 within {DEADLINE_SECONDS} s.")
        time.sleep(0.05)
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    answers = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        connection.request("POST", "/invocations", path.read_bytes(), {"Content-Type": "application/x-image"})
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != http.HTTPStatus.OK:
            sys.exit(f"{path}: {response.status} {body}")
        answers[path.relative_to(folder).as_posix()] = json.loads(body)
    json.dump(answers, sys.stdout)


def is_healthy() -> bool:
    """One GET /ping."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=2)
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
