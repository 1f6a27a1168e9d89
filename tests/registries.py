"""Small repositories with the real build_and_push.sh, and real registries to push to, for tests."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local.registry import DOCKER_MANIFEST
from tests.waiting import wait_until

TOOLS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A repository with the real script and small Dockerfiles, and what its commands see."""

    folder: Path
    environment: dict[str, str]

    def with_environment(self, **changes: str) -> Checkout:
        return replace(self, environment=self.environment | changes)

    def without(self, *names: str) -> Checkout:
        kept = {key: value for key, value in self.environment.items() if key not in names}
        return replace(self, environment=kept)

    def push(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`./build_and_push.sh`, its two streams as one."""
        return subprocess.run(
            ["./build_and_push.sh", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    @property
    def tag(self) -> str:
        return self.git("rev-parse", "--short=12", "HEAD")

    def images(self) -> dict[str, dict[str, str]]:
        images: dict[str, dict[str, str]] = json.loads((self.folder / "container/images.json").read_text())
        return images


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A docker-registry process: where it answers, where it stores, how to log in."""

    url: str
    storage: Path
    authorization: str = ""
    ca_file: Path | None = None

    def request(self, path: str, *, content: bytes | None = None, kind: str = DOCKER_MANIFEST) -> Any:
        """GET, or PUT of `content`; the answer's headers."""
        headers = {"Accept": kind, "Content-Type": kind}
        if self.authorization:
            headers["Authorization"] = f"Basic {self.authorization}"
        method = "GET" if content is None else "PUT"
        request = urllib.request.Request(
            f"{self.url}/v2/{path}", data=content, headers=headers, method=method
        )
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=30) as response:
            return response.headers, response.read()

    def stored(self) -> dict[str, int]:
        """Every file with the time it was written: equal twice means nothing was uploaded."""
        stored = {}
        for folder, _, names in os.walk(self.storage):  # passes over folders that are removed meanwhile
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    stored[str(path.relative_to(self.storage))] = path.stat().st_mtime_ns
        return stored


def serve_registry(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A plain registry without TLS and login on 127.0.0.1:port."""
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, seconds=20)
    return process
