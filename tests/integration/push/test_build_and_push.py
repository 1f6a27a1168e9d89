"""build_and_push.sh with a real engine and real registries; ECR is moto plus a registry under ECR's name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.platform import free_port
from local.registry import DOCKER_MANIFEST
from tests.registries import TOOLS, Checkout, Registry, docker
from tests.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


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
