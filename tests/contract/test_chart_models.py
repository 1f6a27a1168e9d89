"""How the chart's init containers get a model: their rendered commands, run."""

from __future__ import annotations

import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from artifact.bundle import pack_artifact, read_bundle
from local.platform import REPOSITORY
from tests.bundles import make_tiny_bundle
from tests.helm import (
    BIN,
    CASES,
    S3,
    TIMEOUT_SECONDS,
    Helm,
    containers_of,
)


def command_of(helm: Helm, name: str, values: dict[str, Any], folder: Path) -> list[str]:
    """An init container's command, with its mounts under `folder`."""
    (container,) = (each for each in containers_of(helm.render(values)) if each["name"] == name)
    mounted = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] != "tmp"]
    command: list[str] = container["command"]
    for path in mounted:
        (folder / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        command = [part.replace(path, f"{folder}{path}") for part in command]
    return command


def run_unpack(command: list[str]) -> subprocess.CompletedProcess[str]:
    """As in the serving image: `python` on PATH, artifact/ on PYTHONPATH."""
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, env=environ, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )


@contextmanager
def start_s3(bucket: str) -> Iterator[dict[str, str]]:
    """moto's S3 over HTTP with one bucket; yields the environment that leads the AWS CLI there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [str(BIN / "moto_server"), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                requests.put(f"{url}/{bucket}", timeout=TIMEOUT_SECONDS).raise_for_status()
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.1)
        yield {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(TIMEOUT_SECONDS)


def test_model_in_s3_is_downloaded_and_unpacked_by_the_rendered_commands(helm: Helm, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    pack_artifact(bundle, tmp_path / "model.tar.gz")
    pod = tmp_path / "pod"
    download, unpack = (command_of(helm, name, S3, pod) for name in ("download-model", "unpack-model"))
    missing = [part.replace("s3://models/dogs", "s3://models/cats") for part in download]

    with start_s3("models") as environ:
        requests.put(
            f"{environ['AWS_ENDPOINT_URL']}/models/dogs/model.tar.gz",
            data=(tmp_path / "model.tar.gz").read_bytes(),
            timeout=TIMEOUT_SECONDS,
        ).raise_for_status()
        downloaded, failed = (
            subprocess.run(
                command,
                env=environ | {"HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
            for command in (download, missing)
        )
    unpacked = run_unpack(unpack)

    assert downloaded.returncode == 0, downloaded.stderr
    assert failed.returncode != 0 and "404" in failed.stderr
    assert unpacked.returncode == 0, unpacked.stderr
    assert read_bundle(pod / "kennel/model").manifest == read_bundle(bundle).manifest
    assert list((pod / "kennel/download").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        pytest.param(None, "is not a sound .tar.gz", id="no archive"),
        pytest.param(
            ["golden.json"], "manifest.json is missing: this is not a Kennel artifact", id="no manifest"
        ),
        pytest.param(["manifest.json"], "golden.json", id="files that the manifest names are absent"),
    ],
)
def test_download_that_is_no_model_is_refused(
    helm: Helm, tmp_path: Path, names: list[str] | None, sentence: str
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    unpack = command_of(helm, "unpack-model", S3, tmp_path)
    archive = tmp_path / "kennel/download/model.tar.gz"
    if names is None:
        archive.write_bytes(b"<Error>AccessDenied</Error>")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for name in names:
                tar.add(bundle / name, name)

    done = run_unpack(unpack)

    assert done.returncode == 1
    assert done.stderr.startswith("Kennel cannot use the model: ") and len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_model_image_is_copied_by_the_rendered_command(helm: Helm, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    values = CASES["copied image"] | {"model.image.path": str(bundle)}

    done = subprocess.run(command_of(helm, "copy-model", values, tmp_path), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "kennel/model").manifest == read_bundle(bundle).manifest


def test_model_image_without_a_manifest_is_refused(helm: Helm, tmp_path: Path) -> None:
    values = CASES["copied image"] | {"model.image.path": str(tmp_path)}

    done = subprocess.run(command_of(helm, "copy-model", values, tmp_path), capture_output=True, text=True)

    assert done.returncode == 1
    assert f"there is no {tmp_path}/manifest.json in this image" in done.stderr
