"""`docker compose up` with the real image: it answers, is locked up and ends well, or says why not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.platform import REPOSITORY
from tests.bundles import LABELS, encode_picture, make_tiny_bundle

pytestmark = pytest.mark.docker

TIMEOUT_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Project:
    """A compose project of this test's own, with its variables."""

    name: str
    environ: Mapping[str, str]

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGUMENTS`"""
        return subprocess.run(
            [
                "docker",
                "compose",
                "--project-name",
                self.name,
                "--file",
                "container/compose.yaml",
                *arguments,
            ],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )

    def inspect(self) -> Any:
        """What the engine knows of the server's container."""
        (container,) = self.compose("ps", "--all", "--quiet", "server").stdout.split()
        done = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]


@pytest.fixture
def project(serving_image: str, tmp_path: Path) -> Iterator[Project]:
    """Taken down again, with its network, however the test ends."""
    model = make_tiny_bundle(tmp_path / "model")
    for path in (model, *model.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the server is another user
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    environ = {"KENNEL_IMAGE": serving_image, "KENNEL_MODEL": str(model), "PORT": port, "CPUS": "1"}
    project = Project(f"kennel-test-{os.getpid()}", environ)
    try:
        yield project
    finally:
        project.compose("down", "--timeout", "5")


def test_server_comes_up_healthy_answers_and_ends_with_zero(project: Project) -> None:
    up = project.compose("up", "--wait", "--no-build")
    assert up.returncode == 0, up.stderr + project.compose("logs").stdout

    answer = requests.post(
        f"http://127.0.0.1:{project.environ['PORT']}/invocations",
        data=encode_picture("PNG"),
        headers={"Content-Type": "image/png", "Accept": "application/json; top=1"},
        timeout=TIMEOUT_SECONDS,
    )
    running = project.inspect()
    project.compose("stop")

    assert answer.json()["predictions"][0]["label"] in LABELS
    assert running["State"]["Health"]["Status"] == "healthy"
    assert running["HostConfig"]["ReadonlyRootfs"] and running["HostConfig"]["CapDrop"] == ["ALL"]
    assert running["HostConfig"]["NanoCpus"] == 1_000_000_000
    assert project.inspect()["State"]["ExitCode"] == 0


def test_folder_that_holds_no_model_ends_the_server_with_a_sentence(project: Project, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    project = Project(project.name, {**project.environ, "KENNEL_MODEL": str(empty)})

    up = project.compose("up", "--wait", "--no-build")

    assert up.returncode != 0
    assert "manifest.json is missing: this is not a Kennel artifact" in project.compose("logs").stdout


def test_folder_that_is_absent_is_an_error_and_is_not_made(project: Project, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    project = Project(project.name, {**project.environ, "KENNEL_MODEL": str(absent)})

    up = project.compose("up", "--wait", "--no-build")

    assert up.returncode != 0 and f"bind source path does not exist: {absent}" in up.stderr
    assert not absent.exists()
