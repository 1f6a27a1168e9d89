"""`docker run` as SageMaker would, for `--docker`: the same folders and environment, in the real images."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local.platform import LocalError

PORT = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container to run in the foreground, so that signals sent to `docker run` reach its PID 1."""

    image: str
    arguments: tuple[str, ...]  # SageMaker passes `train` or `serve`
    name: str = field(default_factory=lambda: f"kennel-{uuid.uuid4().hex[:12]}")
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)  # path inside[:ro] -> folder here
    publish: int | None = None  # the port of this machine's loopback that reaches port 8080 inside
    remove: bool = True  # when it ends; False keeps its log and exit code
    options: tuple[str, ...] = ()  # more of `docker run`'s; the last of a kind counts

    def command(self) -> list[str]:
        """The caller's own user, so that what a job writes belongs to whoever started it."""
        run = ["docker", "run", "--pull", "never", "--name", self.name, *(["--rm"] if self.remove else [])]
        run += ["--user", f"{os.getuid()}:{os.getgid()}"]
        run += [word for name, value in self.environment.items() for word in ("--env", f"{name}={value}")]
        run += [
            word
            for inside, folder in self.mounts.items()
            for word in ("--volume", f"{folder.resolve()}:{inside}")
        ]
        run += ["--publish", f"127.0.0.1:{self.publish}:{PORT}"] if self.publish else []
        return [*run, *self.options, self.image, *self.arguments]


@contextmanager
def removed_at_the_end(container: Container) -> Iterator[None]:
    """Whatever becomes of the `docker run` in between, the container does not outlive this."""
    try:
        yield
    finally:
        subprocess.run(["docker", "rm", "--force", container.name], capture_output=True, check=False)


@contextmanager
def private_network() -> Iterator[str]:
    """A network on which the containers of one job find each other by name."""
    name = f"kennel-{uuid.uuid4().hex[:12]}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)


def require_image(image: str) -> None:
    """Raises LocalError where there is no Docker engine or no such image."""
    docker("version")
    if _run("image", "inspect", image).returncode != 0:
        raise LocalError(f"There is no image {image} here; `make build` makes the images.")


def docker(*arguments: str, stdin: str | None = None) -> str:
    """What `docker ARGUMENTS` prints. Raises LocalError with its last words where it fails."""
    done = _run(*arguments, stdin=stdin)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer"
        raise LocalError(f"`docker {arguments[0]}` failed: {reason}")
    return done.stdout


def _run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise LocalError("There is no `docker` command here; without ON=docker none is needed.") from None
