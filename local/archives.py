"""Archives from somewhere, unpacked with distrust: plain files below the folder, and no more than allowed."""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

CHUNK_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 20 * 1000**3  # the largest set a recipe names unpacks to 1.2 GB
CLUTTER = {"__MACOSX", ".DS_Store"}  # what macOS adds to archives; `._x.jpg` in there is not an image
DAMAGED_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,  # a compression method that zipfile does not know
)

_ArchiveFile: TypeAlias = tuple[PurePosixPath, IO[bytes]]


class DownloadError(RuntimeError):
    """Images could not be fetched; the message is one sentence on why and what to do."""


class _TooManyBytes(Exception):
    """An archive goes over its limit."""


def unpack_archive(archive: Path, folder: Path, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """A zip or tar into an existing folder: plain files below it only, and no more bytes than allowed."""
    left_bytes = max_unpacked_bytes
    try:
        with closing(_archive_files(archive)) as files:
            for path, stream in files:
                left_bytes -= _write_file(stream, folder / path, limit_bytes=left_bytes)
    except _TooManyBytes:
        raise DownloadError(
            f"{archive} unpacks to more than {max_unpacked_bytes} bytes; look into it, and raise "
            "max_unpacked_bytes if that is right."
        ) from None
    except DAMAGED_ARCHIVE as error:
        raise DownloadError(f"{archive} is damaged ({error}); delete it and run again.") from error
    except OSError as error:
        raise DownloadError(
            f"{archive} cannot be unpacked ({error}); make room, or look into the archive."
        ) from error


def _archive_files(archive: Path) -> Generator[_ArchiveFile, None, None]:
    """Path and content of each plain file, checked. Tar first: a tar that ends in a zip looks like a zip."""
    if tarfile.is_tarfile(archive):
        yield from _tar_files(archive)
    elif zipfile.is_zipfile(archive):
        yield from _zip_files(archive)
    else:
        raise DownloadError(
            f"{archive} is neither a zip nor a tar; look into it (a web page?), delete it, and correct "
            "[data].url in the recipe."
        )


def _zip_files(archive: Path) -> Generator[_ArchiveFile, None, None]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            path = _checked_path(info.filename, archive)
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, info.filename, "a link or special file")
            if info.flag_bits & 1:
                raise _refused(archive, info.filename, "an encrypted file")
            if not info.is_dir() and not CLUTTER.intersection(path.parts):
                yield path, opened.open(info)


def _tar_files(archive: Path) -> Generator[_ArchiveFile, None, None]:
    with tarfile.open(archive) as opened:
        for member in opened:
            path = _checked_path(member.name, archive)
            if not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "a link or special file")
            stream = opened.extractfile(member)
            if stream is not None and not CLUTTER.intersection(path.parts):
                yield path, stream


def _checked_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*\0", name, re.DOTALL):
        raise _refused(archive, name, "a path outside the folder it is unpacked into")
    return path


def _refused(archive: Path, name: str, reason: str) -> DownloadError:
    return DownloadError(
        f"{archive} was not unpacked: it holds {name!r}, {reason}; get the images from a source you trust."
    )


def _write_file(stream: IO[bytes], target: Path, *, limit_bytes: int) -> int:
    """Bytes written. They are counted as they come: the sizes that an archive states can lie."""
    written_bytes = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with stream, target.open("xb") as sink:
        while chunk := stream.read(CHUNK_BYTES):
            written_bytes += len(chunk)
            if written_bytes > limit_bytes:
                raise _TooManyBytes
            sink.write(chunk)
    return written_bytes
