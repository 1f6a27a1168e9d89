"""A checkout of one's own, a plain registry, and a stand-in for ECR."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform import free_port
from tests.conftest import REPOSITORY
from tests.registries import TOOLS, Checkout, Registry, docker, serve_registry

DOCKERFILES = {
    "container/training.Dockerfile": 'FROM scratch\nCOPY payload /payload\nENTRYPOINT ["train"]\n',
    "container/serving.Dockerfile": "FROM scratch AS serving\nARG REVISION\nCOPY payload /payload\n"
    "LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true revision=$REVISION\n"
    'ENTRYPOINT ["serve"]\nUSER 10001\nFROM serving AS cpu\nFROM serving AS gpu\nCOPY payload /gpu\n',
}
COPIED = (
    "build_and_push.sh",
    "pyproject.toml",
    ".gitignore",
    *(f"local/{name}.py" for name in ("__init__", "image_check", "registry")),
)


@pytest.fixture
def checkout(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Checkout]:
    """Committed, and different from every other test's, so that images and tags do not meet."""
    folder = tmp_path / "checkout"
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    for name, text in DOCKERFILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    # The version too is the test's own: kennel/IMAGE:0.1.0 of the person at this machine stays theirs.
    version = f"0.0.0.{os.getpid()}"
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', f'version = "{version}"', 1))
    (folder / "payload").write_text(f"{request.node.name} {time.time_ns()}")
    docker_config = tmp_path / "docker"
    docker_config.mkdir()
    own_plugins = Path.home() / ".docker/cli-plugins"
    if own_plugins.is_dir():
        (docker_config / "cli-plugins").symlink_to(own_plugins)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "REGISTRY"))}
    environment = kept | {
        "LOCAL_TAG": version,
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(docker_config),
        "NO_PROXY": "*",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PUSH_PAUSE_SECONDS": "1",
    }
    made = Checkout(folder=folder, environment=environment)
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "Images")
    tag = made.tag
    yield made
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    ours = [name for name in listed if name.rsplit(":", 1)[-1].startswith((tag, made.tag, version))]
    if ours:
        docker("rmi", "--force", *ours)


@pytest.fixture
def plain_registry(tmp_path: Path) -> Iterator[Registry]:
    """REGISTRY=127.0.0.1:PORT/team, where no ECR is asked."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is missing (Debian: apt-get install docker-registry)")
    folder, port = tmp_path / "registry", free_port()
    folder.mkdir()
    process = serve_registry(folder, port)
    yield Registry(url=f"http://127.0.0.1:{port}", storage=folder / "data")
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def plain(checkout: Checkout, plain_registry: Registry) -> Checkout:
    """A checkout that pushes to the plain registry."""
    return checkout.with_environment(REGISTRY=f"{plain_registry.url.removeprefix('http://')}/team")


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, dict[str, str]]]:
    """moto and a registry under ECR's very host name; and the environment that leads the AWS CLI there."""
    script = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "bin/ecr-standin"
    for needed in (str(script), "docker-registry", "openssl", "curl"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is missing; the stand-in for ECR needs it")
    if os.geteuid():
        pytest.skip("the stand-in for ECR writes /etc/hosts and takes port 443: run as root")
    folder = tmp_path_factory.mktemp("ecr") / "standin"
    environment = os.environ | {
        "STANDIN_DIR": str(folder),
        "MOTO_PORT": str(free_port()),
        "MOTO_SERVER": str(TOOLS / "moto_server"),
        "AWS_CLI": str(TOOLS / "aws"),
    }
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True, check=False)
    started = run([str(script), "up"], timeout=120)
    try:
        assert started.returncode == 0, started.stderr
        lines = [line.removeprefix("export ") for line in started.stdout.splitlines()]
        variables = dict(line.split("=", 1) for line in lines)
        query = "authorizationData[0].authorizationToken"
        command = [str(TOOLS / "aws"), "ecr", "get-authorization-token", "--output", "text", "--query", query]
        token = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=True
        ).stdout.strip()
        host = (folder / "host").read_text().strip()
        registry = Registry(
            url=f"https://{host}",
            storage=folder / "data",
            authorization=token,
            ca_file=folder / "tls.crt",
        )
        yield registry, variables
    finally:
        run([str(script), "down"], timeout=60)


@pytest.fixture
def on_ecr(
    checkout: Checkout, ecr: tuple[Registry, dict[str, str]], request: pytest.FixtureRequest
) -> Checkout:
    """A checkout that pushes to the stand-in; repositories of its own, for each test to find none."""
    prefix = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    return checkout.with_environment(**ecr[1], REPOSITORY_PREFIX=prefix)
