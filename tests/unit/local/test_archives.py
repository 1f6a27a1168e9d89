"""What is unpacked, what is refused, and that nothing is left of it."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from local.archives import DownloadError, unpack_archive
from tests.archives import image_zip, names_below, zip_bytes


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "images.archive"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_is_unpacked(mode: str, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, mode) as opened:  # type: ignore[call-overload]
        add_to_tar(opened, "a", kind=tarfile.DIRTYPE)
        add_to_tar(opened, "./a/b.jpg", content=b"pixels")
        add_to_tar(opened, "__MACOSX/a/._b.jpg", content=b"clutter")
    out = tmp_path / "out"

    unpack_archive(archive, out)

    assert names_below(out) == ["a/b.jpg"]
    assert (out / "a/b.jpg").read_bytes() == b"pixels"


def test_tar_that_ends_in_a_zip_is_read_as_a_tar(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, "w") as opened:
        add_to_tar(opened, "inner.zip", content=image_zip())

    unpack_archive(archive, tmp_path / "out")

    assert names_below(tmp_path / "out") == ["inner.zip"]


def add_to_tar(
    opened: tarfile.TarFile, name: str, *, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content), link
    opened.addfile(member, io.BytesIO(content))


UNSAFE_NAMES = [
    pytest.param("../escaped.jpg", id="parent"),
    pytest.param("a/../../escaped.jpg", id="parent-inside"),
    pytest.param("/tmp/escaped.jpg", id="absolute"),
    pytest.param("..\\escaped.jpg", id="backslash"),
    pytest.param("C:\\escaped.jpg", id="drive"),
]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_zip_that_reaches_outside_is_refused(name: str, archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(zip_bytes({name: b"x"}))

    with pytest.raises(DownloadError, match=r"was not unpacked: it holds .*escaped\.jpg', a path outside"):
        unpack_archive(archive, tmp_path / "out")

    assert names_below(tmp_path) == [archive.name]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_tar_that_reaches_outside_is_refused(name: str, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, "w") as opened:
        add_to_tar(opened, name, content=b"x")

    with pytest.raises(DownloadError, match=r"was not unpacked: it holds .*escaped\.jpg', a path outside"):
        unpack_archive(archive, tmp_path / "out")

    assert names_below(tmp_path) == [archive.name]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(tarfile.SYMTYPE, id="symlink"),
        pytest.param(tarfile.LNKTYPE, id="hard-link"),
        pytest.param(tarfile.FIFOTYPE, id="fifo"),
        pytest.param(tarfile.CHRTYPE, id="device"),
    ],
)
def test_tar_with_a_link_or_special_file_is_refused(kind: bytes, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, "w") as opened:
        add_to_tar(opened, "link", kind=kind, link="/etc")
        add_to_tar(opened, "link/passwd", content=b"x")

    with pytest.raises(DownloadError, match="holds 'link', a link or special file"):
        unpack_archive(archive, tmp_path / "out")

    assert names_below(tmp_path) == [archive.name]


def test_zip_with_a_symlink_is_refused(archive: Path, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(info, "/etc")

    with pytest.raises(DownloadError, match="holds 'link', a link or special file"):
        unpack_archive(archive, tmp_path / "out")


def test_limit_counts_all_files_together(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(zip_bytes({"a": bytes(600), "b": bytes(600)}))

    unpack_archive(archive, tmp_path / "fits", max_unpacked_bytes=1200)
    with pytest.raises(DownloadError, match="unpacks to more than 1199 bytes"):
        unpack_archive(archive, tmp_path / "does-not", max_unpacked_bytes=1199)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"<html>Sign in</html>", "is neither a zip nor a tar", id="web-page"),
        pytest.param(b"", "is neither a zip nor a tar", id="empty"),
        pytest.param(image_zip().replace(b"train", b"trxin", 1), "is damaged", id="zip-names-disagree"),
    ],
)
def test_file_that_is_no_archive_is_refused(
    content: bytes, message: str, archive: Path, tmp_path: Path
) -> None:
    archive.write_bytes(content)

    with pytest.raises(DownloadError, match=f"{message}.*delete it"):
        unpack_archive(archive, tmp_path / "out")


def test_truncated_tar_is_refused_as_damaged(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, "w:gz") as opened:
        add_to_tar(opened, "a.jpg", content=random.Random(0).randbytes(50_000))
    archive.write_bytes(archive.read_bytes()[:30_000])

    with pytest.raises(DownloadError, match="is damaged"):
        unpack_archive(archive, tmp_path / "out")


def test_same_file_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(zip_bytes({"a.jpg": b"1", "./a.jpg": b"2"}))

    with pytest.raises(DownloadError, match=r"cannot be unpacked .*File exists"):
        unpack_archive(archive, tmp_path / "out")
