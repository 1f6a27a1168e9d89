"""Hostile archives and manifests are refused, and a configured key must have signed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from artifact.bundle import (
    SIGNATURE,
    BundleError,
    open_bundle,
    pack_artifact,
    read_bundle,
    unpack_artifact,
    write_manifest,
)
from artifact.signature import PublicKey
from tests.bundles import make_tiny_bundle

KEY_ID = b"kennel!!"


def write_archive(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    with tarfile.open(path, "w:gz") as tar:
        good = tarfile.TarInfo("manifest.json")
        tar.addfile(good, io.BytesIO(b""))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))


@pytest.mark.parametrize(
    ("name", "kind", "link", "sentence"),
    [
        pytest.param("../outside", tarfile.REGTYPE, "", "outside the folder", id="dots"),
        pytest.param("a/../b", tarfile.REGTYPE, "", "outside the folder", id="inner_dots"),
        pytest.param("/absolute", tarfile.REGTYPE, "", "outside the folder", id="absolute"),
        pytest.param("link", tarfile.SYMTYPE, "manifest.json", "neither a file nor a folder", id="symlink"),
        pytest.param(
            "link", tarfile.SYMTYPE, "/etc/passwd", "neither a file nor a folder", id="symlink_outside"
        ),
        pytest.param("link", tarfile.LNKTYPE, "manifest.json", "neither a file nor a folder", id="hard_link"),
        pytest.param("fifo", tarfile.FIFOTYPE, "", "neither a file nor a folder", id="fifo"),
        pytest.param("device", tarfile.CHRTYPE, "", "neither a file nor a folder", id="device"),
    ],
)
def test_archive_with_anything_but_files_inside_is_refused(
    name: str, kind: bytes, link: str, sentence: str, tmp_path: Path
) -> None:
    write_archive(tmp_path / "model.tar.gz", name, kind, link)

    with pytest.raises(BundleError, match=sentence):
        unpack_artifact(tmp_path / "model.tar.gz", tmp_path / "here" / "model")

    assert not (tmp_path / "here" / "outside").exists()
    assert not (tmp_path / "here" / "model" / "link").is_symlink()


def test_linked_files_are_packed_as_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("a")
    os.link(tmp_path / "model/a", tmp_path / "model/b")

    pack_artifact(tmp_path / "model", tmp_path / "model.tar.gz")
    unpack_artifact(tmp_path / "model.tar.gz", tmp_path / "unpacked")

    assert (tmp_path / "unpacked/b").read_text() == "a"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "model")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "openvino/../../secret"])
def test_manifest_that_lists_a_file_outside_is_refused(name: str, model_dir: Path) -> None:
    (model_dir.parent / "secret").write_text("")
    manifest = json.loads((model_dir / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(b"").hexdigest()
    (model_dir / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match="outside its folder"):
        open_bundle(model_dir)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(32))


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(KEY_ID, key.public_key().public_bytes_raw())


def sign(model_dir: Path, key: Ed25519PrivateKey) -> None:
    """As minisign does."""
    content = (model_dir / "manifest.json").read_bytes()
    signed = key.sign(hashlib.blake2b(content).digest())
    lines = [
        "untrusted comment: x",
        base64.b64encode(b"ED" + KEY_ID + signed).decode(),
        "trusted comment: y",
        base64.b64encode(key.sign(signed + b"y")).decode(),
    ]
    (model_dir / SIGNATURE).write_text("\n".join(lines))


def test_signed_bundle_opens_with_its_key_and_without_one(model_dir: Path, key: Ed25519PrivateKey) -> None:
    sign(model_dir, key)

    assert open_bundle(model_dir, public_key=public(key)).manifest == read_bundle(model_dir).manifest


def test_manifest_written_again_does_not_list_the_signature(model_dir: Path, key: Ed25519PrivateKey) -> None:
    manifest = read_bundle(model_dir).manifest
    sign(model_dir, key)

    write_manifest(model_dir, manifest)

    assert SIGNATURE not in read_bundle(model_dir).manifest.files


def remove_signature(model_dir: Path) -> None:
    (model_dir / SIGNATURE).unlink()


def change_manifest(model_dir: Path) -> None:
    with (model_dir / "manifest.json").open("a") as file:
        file.write(" ")


def garble_signature(model_dir: Path) -> None:
    (model_dir / SIGNATURE).write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        pytest.param(remove_signature, "minisig is missing though KENNEL_PUBLIC_KEY is set", id="none"),
        pytest.param(change_manifest, "does not fit the file", id="changed"),
        pytest.param(garble_signature, "do not trust this artifact", id="garbled"),
    ],
)
def test_bundle_that_the_key_did_not_sign_is_refused(
    tamper: Callable[[Path], None], sentence: str, model_dir: Path, key: Ed25519PrivateKey
) -> None:
    sign(model_dir, key)
    tamper(model_dir)

    with pytest.raises(BundleError, match=sentence):
        open_bundle(model_dir, public_key=public(key))


def test_bundle_signed_by_another_key_is_refused(model_dir: Path, key: Ed25519PrivateKey) -> None:
    sign(model_dir, Ed25519PrivateKey.from_private_bytes(bytes(31) + b"x"))

    with pytest.raises(BundleError, match="does not fit the file"):
        open_bundle(model_dir, public_key=public(key))
