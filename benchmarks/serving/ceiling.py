"""Runs `limit` in the serving environment, or in the serving image, and finds the best arrangement."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.serving.limit import ARRANGEMENTS
from local.container import docker
from local.platform import REPOSITORY, container_environment, serving_python

# (arrangement, seconds) -> images a second
Limit = Callable[[str, float], float]


class LimitError(RuntimeError):
    """The limit could not be measured; the message says why."""


def local_limit(model_dir: Path, picture: Path) -> Limit:
    """In processes of this machine."""

    def measure(arrangement: str, seconds: float) -> float:
        command = [str(serving_python()), "-m", "benchmarks.serving.limit"]
        command += _arguments(model_dir, picture, arrangement, seconds)
        environment = container_environment(serving_python())
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LimitError(f"limit ({arrangement}) failed: {' '.join(done.stderr.split())[-300:]}")
        return parse_limit(done.stdout)

    return measure


def container_limit(model_dir: Path, picture: Path, *, image: str, cpus: str) -> Limit:
    """In a container of the serving image under the same quota as the server's."""

    def measure(arrangement: str, seconds: float) -> float:
        run = ["run", "--rm", "--pull", "never", "--cpus", cpus, "--entrypoint", "python"]
        run += ["--volume", f"{REPOSITORY}:/repository:ro", "--workdir", "/repository"]
        run += ["--volume", f"{model_dir.resolve()}:/opt/ml/model:ro"]
        run += ["--volume", f"{picture.resolve()}:/picture.jpg:ro", "--env", "PYTHONPATH=/repository"]
        inside = _arguments(Path("/opt/ml/model"), Path("/picture.jpg"), arrangement, seconds)
        return parse_limit(docker(*run, image, "-m", "benchmarks.serving.limit", *inside))

    return measure


def parse_limit(output: str) -> float:
    """Images a second from the last line of `limit`."""
    try:
        return float(json.loads(output.strip().splitlines()[-1])["per_second"])
    except (IndexError, KeyError, ValueError) as error:
        raise LimitError(f"limit printed no result: {output[-200:]!r}") from error


def measure_arrangements(limit: Limit, seconds: float) -> dict[str, float]:
    """Each arrangement once."""
    return {arrangement: limit(arrangement, seconds) for arrangement in ARRANGEMENTS}


def _arguments(model_dir: Path, picture: Path, arrangement: str, seconds: float) -> list[str]:
    options = {"artifact": model_dir, "picture": picture, "arrangement": arrangement, "seconds": seconds}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
