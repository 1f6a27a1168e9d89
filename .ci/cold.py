"""README's commands, literally, on a machine that has nothing: run by .ci/cold in a fresh container.

Placeholders become what a newcomer would have: their images (here the demo's), state dicts, a list of labels.
Prints how long each command took; ends with the first that fails.
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

COMMANDS = 10  # of the README, the two of "Two commands" among them; the next need Docker
SECONDS = 900  # for one
SERVE = "make serve"
PLACEHOLDERS = {
    "path/to/DATA": "build/data/shapes",
    "path/to/cleaned": "build/cleaned",
    "WEIGHTS=resnet18.pth": "WEIGHTS=build/resnet18.pth",
    "--weights model.pth": "--weights build/resnet50.pth",
    "labels.txt": "build/labels.txt",
    "--output OUT": "--output build/imported",
    "MODEL.tar.gz IMAGES": "build/shapes/model.tar.gz build/data/shapes/test",
}
# A newcomer's own files: two networks' weights as torchvision's users have them, and their labels.
PREPARE = """
import torch, torchvision
torch.save(torchvision.models.resnet18().state_dict(), "build/resnet18.pth")
torch.save(torchvision.models.resnet50(num_classes=3).state_dict(), "build/resnet50.pth")
open("build/labels.txt", "w").write("cat\\ndog\\nfox\\n")
"""


def read_commands(readme: str) -> list[str]:
    """The lines of its code blocks that a shell takes, in order; comments and line ends joined."""
    code = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"^ {4}(.+)$", readme, re.MULTILINE)))
    starts = ("make ", "curl ", ".venv/bin/python ", "docker ")
    lines = [re.split(r"\s+#\s", line)[0].strip() for line in code.splitlines()]
    return [line for line in lines if line.startswith(starts)]


def fill_in(command: str) -> str:
    for placeholder, value in PLACEHOLDERS.items():
        command = command.replace(placeholder, value)
    return command


def run(command: str) -> float:
    """Seconds. Ends the program where it fails."""
    started = time.monotonic()
    print(f"\n$ {command}", flush=True)
    code = subprocess.run(["bash", "-c", command], timeout=SECONDS, check=False).returncode
    if code:
        sys.exit(f"README's command failed with exit code {code}: {command}")
    return time.monotonic() - started


def serve() -> tuple[float, subprocess.Popen]:
    """Seconds until it answers, and the server."""
    started = time.monotonic()
    print(f"\n$ {SERVE}", flush=True)
    server = subprocess.Popen(SERVE.split(), start_new_session=True)
    while time.monotonic() - started < 60:
        try:
            urllib.request.urlopen("http://127.0.0.1:8080/ping", timeout=5).close()
            return time.monotonic() - started, server
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"{SERVE} did not answer within 60 s")


def main() -> None:
    commands = [fill_in(command) for command in read_commands(Path("README.md").read_text())][:COMMANDS]
    took: dict[str, float] = {}
    server = None
    for command in commands:
        if command.startswith(SERVE):
            took[command], server = serve()
        else:
            took[command] = run(command)
        if command == "make demo":
            subprocess.run([".venv/bin/python", "-c", PREPARE], check=True)
    if server is not None:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    print("\nREADME's commands on a machine with nothing:")
    for command, seconds in took.items():
        print(f"{seconds:7.1f} s  {command}")


if __name__ == "__main__":
    main()
