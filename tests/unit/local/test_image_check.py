"""Planted manifests and configs, and what is said about them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from local.image_check import (
    BIND_LABEL,
    image_uri,
    judge,
    planned_image_uri,
    read_images,
    write_image,
)
from local.registry import (
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    ImageError,
    Manifest,
    Reference,
    parse_reference,
    read_login,
)

GIGABYTE = 1000**3


def make_manifest(media_type: str = DOCKER_MANIFEST, *layer_bytes: int) -> Manifest:
    layers = [{"size": size} for size in layer_bytes or (1000,)]
    return Manifest(media_type=media_type, digest="sha256:1", body={"layers": layers})


def make_config(architecture: str = "amd64", **runtime: Any) -> dict[str, Any]:
    good = {"Entrypoint": ["serve"], "Cmd": None, "User": "10001", "Labels": {BIND_LABEL: "true"}}
    return {"os": "linux", "architecture": architecture, "config": good | runtime}


def refusals(
    name: str = "serving-cpu",
    *,
    manifest: Manifest | None = None,
    config: dict[str, Any] | None = None,
    platform: str = "linux/amd64",
) -> list[str]:
    manifest, config = manifest or make_manifest(), make_config() if config is None else config
    findings = judge(name, manifest=manifest, config=config, platform=platform)
    return [finding.message for finding in findings if finding.refuses]


def test_fit_images_are_not_refused() -> None:
    training = make_config(User="", Labels=None, Entrypoint=["train"])

    assert refusals() == []
    assert refusals("serving-gpu") == []
    assert refusals("training", config=training) == []
    assert refusals(config=make_config("arm64"), platform="linux/arm64") == []


@pytest.mark.parametrize("media_type", [kind for kind in MANIFEST_TYPES if kind != DOCKER_MANIFEST])
def test_other_manifest_is_refused_and_named(media_type: str) -> None:
    (reason,) = refusals(manifest=make_manifest(media_type))

    assert media_type in reason and DOCKER_MANIFEST in reason


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        pytest.param("serving-cpu", make_config("arm64"), "linux/arm64", id="architecture"),
        pytest.param("serving-cpu", make_config(Entrypoint=None), 'ENTRYPOINT ["serve"]', id="no entrypoint"),
        pytest.param(
            "serving-gpu", make_config(Entrypoint=["/usr/bin/tini", "--", "serve"]), "tini", id="tini"
        ),
        pytest.param("serving-gpu", make_config(Labels={}), BIND_LABEL, id="no label"),
        pytest.param("serving-cpu", make_config(Labels={BIND_LABEL: "false"}), BIND_LABEL, id="label false"),
        pytest.param(
            "training", make_config(Entrypoint=["train"], User="10001:0"), "10001:0", id="training user"
        ),
        pytest.param(
            "training", make_config(Entrypoint=[], User="root"), 'ENTRYPOINT ["train"]', id="no train"
        ),
    ],
)
def test_unfit_config_is_refused_for_that_reason_only(name: str, config: dict[str, Any], said: str) -> None:
    (reason,) = refusals(name, config=config)

    assert said in reason


def test_platform_that_sagemaker_has_not_is_refused() -> None:
    assert len(refusals(config=make_config("s390x"), platform="linux/s390x")) == 1


def test_image_above_ten_gigabytes_is_noted_and_just_below_is_not() -> None:
    def notes(*layer_bytes: int) -> list[str]:
        manifest = make_manifest(DOCKER_MANIFEST, *layer_bytes)
        return [
            found.message
            for found in judge("serving-gpu", manifest=manifest, config=make_config(), platform="linux/amd64")
        ]

    assert notes(6 * GIGABYTE, 4 * GIGABYTE) == []
    (note,) = notes(6 * GIGABYTE, 5 * GIGABYTE)
    assert "11.00 GB" in note
    assert refusals("serving-gpu", manifest=make_manifest(DOCKER_MANIFEST, 11 * GIGABYTE)) == []


def test_shell_form_is_noted() -> None:
    config = make_config(Entrypoint=["/bin/sh", "-c", "serve"])

    (finding,) = judge("serving-cpu", manifest=make_manifest(), config=config, platform="linux/amd64")

    assert not finding.refuses and "SIGTERM" in finding.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000/x/kennel-training:a1", ("127.0.0.1:5000", "x/kennel-training", "a1")),
        ("docker.io/me/kennel-training:a1", ("docker.io", "me/kennel-training", "a1")),
        ("me/kennel-training:a1-dirty", ("docker.io", "me/kennel-training", "a1-dirty")),
        ("localhost/kennel:1", ("localhost", "kennel", "1")),
    ],
)
def test_reference_is_taken_apart(text: str, expected: tuple[str, str, str]) -> None:
    host, repository, tag = expected

    assert parse_reference(text) == Reference(host=host, repository=repository, tag=tag)


@pytest.mark.parametrize("text", ["kennel/training", "kennel/Training:1", "host.io/kennel:", "a b:1"])
def test_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="no image reference"):
        parse_reference(text)


def test_images_written_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    names = [f"image-{index}" for index in range(16)]
    writers = [
        threading.Thread(target=write_image, args=(name,), kwargs={"uri": name, "tag": "t", "file": file})
        for name in names
    ]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(read_images(file)) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["images.json"]


def test_image_pushed_again_keeps_its_time_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    file.write_text(json.dumps({"training": {"uri": "r@sha256:1", "tag": "a", "pushed": "long ago"}}))

    write_image("training", uri="r@sha256:1", tag="a", file=file)
    assert read_images(file)["training"]["pushed"] == "long ago"

    write_image("training", uri="r@sha256:2", tag="b", file=file)
    assert image_uri("training", file=file) == "r@sha256:2"
    assert read_images(file)["training"]["pushed"] != "long ago"


def test_image_that_was_never_pushed_has_a_stand_in_but_no_uri(tmp_path: Path) -> None:
    file = tmp_path / "images.json"

    assert planned_image_uri("serving-cpu", file=file) == "<digest of serving-cpu>"
    with pytest.raises(ImageError, match="build push serving-cpu"):
        image_uri("serving-cpu", file=file)


def test_damaged_images_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{")

    with pytest.raises(ImageError, match=r"images\.json is not JSON"):
        read_images(tmp_path / "images.json")


def test_login_is_found_where_docker_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auths = {"https://index.docker.io/v1/": {"auth": "aHVi"}, "127.0.0.1:5000": {"auth": "bG9jYWw="}}
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"Username": "me", "Secret": "pw"}\'\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": auths, "credHelpers": {"helped.example": "test"}})
    )
    monkeypatch.delenv("REGISTRY_AUTH", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert read_login("docker.io") == "aHVi"
    assert read_login("127.0.0.1:5000") == "bG9jYWw="
    assert read_login("helped.example") == "bWU6cHc="
    assert read_login("unknown.example") == ""
