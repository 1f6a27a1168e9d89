"""build_and_push.sh with a real engine and real registries; ECR is moto plus a registry under ECR's name."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from local.platform import free_port
from local.registry import DOCKER_MANIFEST
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

TOOLS = Path(sys.executable).parent
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
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


def wait_until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


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
        return {
            str(path.relative_to(self.storage)): path.stat().st_mtime_ns
            for path in self.storage.rglob("*")
            if path.is_file()
        }


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


def ask_aws(checkout: Checkout, *arguments: str) -> Any:
    command = [str(TOOLS / "aws"), "ecr", *arguments, "--output", "json"]
    done = subprocess.run(command, env=checkout.environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_first_push_to_ecr_makes_the_repository_and_records_the_digest(
    on_ecr: Checkout, ecr: tuple[Registry, dict[str, str]]
) -> None:
    prefix = on_ecr.environment["REPOSITORY_PREFIX"]

    done = on_ecr.push("build", "push", "training", "serving-cpu")

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SageMaker will accept it.") == 2
    described = ask_aws(on_ecr, "describe-repositories")["repositories"]
    ours = [found for found in described if found["repositoryName"].startswith(prefix)]
    assert {found["repositoryName"] for found in ours} == {f"{prefix}/training", f"{prefix}/serving-cpu"}
    assert {found["imageTagMutability"] for found in ours} == {"IMMUTABLE"}
    assert all(found["imageScanningConfiguration"]["scanOnPush"] for found in ours)
    policy = ask_aws(on_ecr, "get-lifecycle-policy", "--repository-name", f"{prefix}/training")
    assert json.loads(policy["lifecyclePolicyText"])["rules"][0]["selection"]["countNumber"] == 14
    headers, content = ecr[0].request(f"{prefix}/training/manifests/{on_ecr.tag}")
    assert headers["Content-Type"] == DOCKER_MANIFEST
    host = ecr[0].url.removeprefix("https://")
    assert on_ecr.images()["training"] == {
        "uri": f"{host}/{prefix}/training@sha256:{hashlib.sha256(content).hexdigest()}",
        "tag": on_ecr.tag,
        "pushed": on_ecr.images()["training"]["pushed"],
    }


def test_second_push_uploads_nothing(on_ecr: Checkout, ecr: tuple[Registry, dict[str, str]]) -> None:
    assert on_ecr.push("build", "push", "serving-cpu").returncode == 0
    stored, images = ecr[0].stored(), on_ecr.images()

    done = on_ecr.push("build", "push", "serving-cpu")

    assert done.returncode == 0, done.stdout
    assert "is already pushed" in done.stdout and "docker push" not in done.stdout
    assert ecr[0].stored() == stored
    assert on_ecr.images() == images


def test_repository_with_other_settings_is_left_alone(on_ecr: Checkout) -> None:
    name = f"{on_ecr.environment['REPOSITORY_PREFIX']}/training"
    ask_aws(on_ecr, "create-repository", "--repository-name", name, "--image-tag-mutability", "MUTABLE")

    done = on_ecr.push("build", "push", "training")

    assert done.returncode == 0, done.stdout
    assert f"note: repository {name} is left as it is" in done.stdout
    (kept,) = ask_aws(on_ecr, "describe-repositories", "--repository-names", name)["repositories"]
    assert kept["imageTagMutability"] == "MUTABLE"


def test_oci_manifest_under_the_tag_is_refused_when_read_back(
    on_ecr: Checkout, ecr: tuple[Registry, dict[str, str]]
) -> None:
    assert on_ecr.push("build", "push", "training").returncode == 0
    (on_ecr.folder / "container/images.json").unlink()
    repository = f"{on_ecr.environment['REPOSITORY_PREFIX']}/training"
    body = json.loads(ecr[0].request(f"{repository}/manifests/{on_ecr.tag}")[1])
    body["mediaType"] = OCI_MANIFEST
    body["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    for layer in body["layers"]:
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    ecr[0].request(
        f"{repository}/manifests/{on_ecr.tag}", content=json.dumps(body).encode(), kind=OCI_MANIFEST
    )

    done = on_ecr.push("push", "training")

    assert done.returncode == 1, done.stdout
    assert "SageMaker will not accept it" in done.stdout and OCI_MANIFEST in done.stdout
    assert not (on_ecr.folder / "container/images.json").exists()


def test_index_under_the_tag_is_not_overwritten(plain: Checkout, plain_registry: Registry) -> None:
    assert plain.push("build", "push", "training").returncode == 0
    path = f"team/kennel-training/manifests/{plain.tag}"
    _, manifest = plain_registry.request(path)
    entry = {
        "mediaType": DOCKER_MANIFEST,
        "size": len(manifest),
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    plain_registry.request(path, content=json.dumps(index).encode(), kind=OCI_INDEX)

    done = plain.push("push", "training")
    command = [sys.executable, "-m", "local.image_check", "pushed", "training"]
    reference = f"{plain.environment['REGISTRY']}/kennel-training:{plain.tag}"
    checked = subprocess.run(
        [*command, reference], cwd=plain.folder, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1 and "with other content, and tags are not moved" in done.stdout
    assert checked.returncode == 1 and OCI_INDEX in checked.stdout


def test_wrong_architecture_is_refused_before_the_push(plain: Checkout, plain_registry: Registry) -> None:
    assert plain.with_environment(PLATFORM="linux/arm64").push("build", "training").returncode == 0

    refused = plain.push("push", "training")
    accepted = plain.with_environment(PLATFORM="linux/arm64").push("push", "training")

    assert refused.returncode == 1
    assert "built for linux/arm64, and linux/amd64 was asked for" in refused.stdout
    assert "docker push" not in refused.stdout
    assert accepted.returncode == 0, accepted.stdout


def test_push_killed_midway_continues_where_it_was(plain: Checkout, plain_registry: Registry) -> None:
    dockerfile = plain.folder / "container/training.Dockerfile"
    (plain.folder / "large").write_bytes(os.urandom(100_000_000))
    dockerfile.write_text(dockerfile.read_text().replace("ENTRYPOINT", "COPY large /large\nENTRYPOINT"))
    plain.git("add", "--all")
    plain.git("commit", "--quiet", "--message", "A layer that takes a while")
    assert plain.push("build", "training").returncode == 0
    command = ["./build_and_push.sh", "push", "training"]
    pushing = subprocess.Popen(
        command, cwd=plain.folder, env=plain.environment, stdout=subprocess.PIPE, text=True
    )

    # The small layer is in, the large one is on its way.
    wait_until(lambda: any("_layers" in name for name in plain_registry.stored()))
    for client in docker_clients_below(pushing.pid):
        os.kill(client, 9)
    output, _ = pushing.communicate(timeout=120)

    assert pushing.returncode == 0, output
    assert "attempt 2 of 3" in output and "already exists" in output
    assert plain.images()["training"]["tag"] == plain.tag


def docker_clients_below(pid: int) -> list[int]:
    """Ids of the `docker push` commands that this process started, directly or through a shell."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            is_client = words[0].endswith(b"docker") and b"push" in words
            found += [child] if is_client else docker_clients_below(child)
    return found


def test_unreachable_registry_is_said_in_a_sentence(checkout: Checkout) -> None:
    nowhere = checkout.with_environment(REGISTRY=f"127.0.0.1:{free_port()}/team")
    assert nowhere.push("build", "training").returncode == 0

    done = nowhere.push("push", "training")

    assert done.returncode != 0
    assert "cannot be reached" in done.stdout and "Traceback" not in done.stdout


def test_plain_registry_is_used_without_asking_aws(plain: Checkout, plain_registry: Registry) -> None:
    done = plain.with_environment(AWS_ENDPOINT_URL="http://127.0.0.1:1").push("build", "push")

    assert done.returncode == 0, done.stdout
    assert set(plain.images()) == {"training", "serving-cpu", "serving-gpu"}
    for name, image in plain.images().items():
        headers, _ = plain_registry.request(f"team/kennel-{name}/manifests/{plain.tag}")
        assert image["uri"].endswith(f"/team/kennel-{name}@{headers['Docker-Content-Digest']}")


def test_pushes_of_different_images_at_once_record_both(plain: Checkout) -> None:
    assert plain.push("build").returncode == 0
    names = ("training", "serving-cpu", "serving-gpu")

    pushing = [
        subprocess.Popen(["./build_and_push.sh", "push", name], cwd=plain.folder, env=plain.environment)
        for name in names
    ]

    assert [process.wait(timeout=120) for process in pushing] == [0, 0, 0]
    assert set(plain.images()) == set(names)


def test_version_tag_is_pushed_for_the_release_commit_only(plain: Checkout, plain_registry: Registry) -> None:
    assert plain.push("build", "push", "training").returncode == 0
    tags = json.loads(plain_registry.request("team/kennel-training/tags/list")[1])["tags"]
    assert tags == [plain.tag]

    plain.git("tag", f"v0.0.0.{os.getpid()}")
    assert plain.push("push", "training").returncode == 0

    tags = json.loads(plain_registry.request("team/kennel-training/tags/list")[1])["tags"]
    assert sorted(tags) == sorted([plain.tag, f"0.0.0.{os.getpid()}"])


def test_dirty_tree_is_pushed_only_when_asked_and_is_marked(plain: Checkout) -> None:
    (plain.folder / "payload").write_text("changed")
    assert plain.push("build", "training").returncode == 0

    refused = plain.push("push", "training")
    allowed = plain.with_environment(ALLOW_DIRTY="1").push("push", "training")

    assert refused.returncode == 1 and "payload" in refused.stdout and "ALLOW_DIRTY=1" in refused.stdout
    assert allowed.returncode == 0, allowed.stdout
    assert plain.images()["training"]["tag"] == f"{plain.tag}-dirty"


def test_missing_region_and_credentials_are_said_in_a_sentence(on_ecr: Checkout) -> None:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    no_region = on_ecr.without("AWS_DEFAULT_REGION", "AWS_REGION").push("push", "training")
    no_credentials = on_ecr.without(*keys).push("push", "training")

    assert no_region.returncode == 1 and "No AWS region: set AWS_REGION" in no_region.stdout
    assert no_credentials.returncode == 1
    assert "Unable to locate credentials" in no_credentials.stdout
    assert "aws sts get-caller-identity" in no_credentials.stdout


def test_dry_run_prints_the_steps_and_does_none(checkout: Checkout) -> None:
    done = checkout.push("--dry-run", "build", "scan", "push", "serving-gpu")

    assert done.returncode == 0, done.stdout
    assert "--target gpu" in done.stdout and "--provenance=false" in done.stdout
    assert "<account>.dkr.ecr.<region>.amazonaws.com/kennel/serving-gpu:" in done.stdout
    assert docker("image", "ls", "--quiet", f"kennel/serving-gpu:{checkout.tag}") == ""
    assert not (checkout.folder / "build").exists()


def test_unknown_word_and_no_verb_are_refused(checkout: Checkout) -> None:
    unknown, none = checkout.push("build", "serving"), checkout.push()

    assert unknown.returncode == 1 and "'serving' is neither a verb" in unknown.stdout
    assert none.returncode == 2 and none.stdout.startswith("usage:")
    assert checkout.push("--help").returncode == 0


class Advisories(http.server.BaseHTTPRequestHandler):
    """Answers like the OSV database: one fixable vulnerability, in click."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = asked["package"]
        affected = {
            "package": package,
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
        vulnerability = {"id": "KENNEL-TEST-1", "summary": "planted", "affected": [affected]}
        found = {"vulns": [vulnerability]} if package["name"] == "click" else {}
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not into the test's output."""


@pytest.fixture
def scanning(checkout: Checkout) -> Checkout:
    """A checkout with one short lock file, and what judges the report."""
    (checkout.folder / "requirements").mkdir()
    shutil.copy(REPOSITORY / "local/vulnerabilities.py", checkout.folder / "local")
    lock = "click==8.5.1 --hash=sha256:" + "a" * 64 + "\nflask==3.1.3 --hash=sha256:" + "b" * 64 + "\n"
    (checkout.folder / "requirements/training.txt").write_text(lock)
    return checkout


@pytest.fixture
def advisories() -> Iterator[str]:
    """The address of a vulnerability database."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def test_scan_names_what_has_a_fix_until_it_is_excused(scanning: Checkout, advisories: str) -> None:
    scanning = scanning.with_environment(OSV_URL=advisories)

    found = scanning.push("scan", "training")
    (scanning.folder / "requirements/vulnerabilities.ignore").write_text("KENNEL-TEST-1 planted here\n")
    excused = scanning.push("scan", "training")

    assert found.returncode == 1, found.stdout
    assert "click 8.5.1: KENNEL-TEST-1 fixed in 99.0" in found.stdout
    assert excused.returncode == 0, excused.stdout
    assert "KENNEL-TEST-1 ignored: planted here" in excused.stdout
    sbom = json.loads((scanning.folder / "build/scan/training.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert {found["name"] for found in sbom["components"]} == {"click", "flask"}


def test_scan_without_the_database_never_passes_unasked(scanning: Checkout) -> None:
    offline = scanning.with_environment(OSV_URL=f"http://127.0.0.1:{free_port()}/v1/query")

    refused = offline.push("scan", "training")
    allowed = offline.with_environment(ALLOW_OFFLINE="1").push("scan", "training")

    assert refused.returncode == 1 and "advisory database" in refused.stdout
    assert allowed.returncode == 0 and "passes WITHOUT knowing" in allowed.stdout
