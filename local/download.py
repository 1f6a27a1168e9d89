"""A recipe's images onto this machine: download (resumed), check, unpack (distrusting the archive).

    root = fetch_dataset(read_recipe(Path("recipes/dogs-resnet50.toml")), Path("data"))

What is finished has its final name, what is not has another: `X.part` while it downloads, `.X.unpacking`
while it unpacks. So a killed run leaves nothing that looks complete, and a second run continues.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from local.archives import CHUNK_BYTES, MAX_UNPACKED_BYTES, DownloadError, unpack_archive
from training.recipe import Data, Recipe

logger = logging.getLogger(__name__)

RESPONSE_TIMEOUT_SECONDS = 60
LOG_INTERVAL_SECONDS = 5


class _Progress(Protocol):
    def update(self, count: float) -> object: ...
    def close(self) -> object: ...


class _LoggedProgress:
    """A line now and then, for logs and pipes."""

    def __init__(self, name: str, *, done_bytes: int, total_bytes: int | None) -> None:
        self._name, self._done_bytes, self._total_bytes = name, done_bytes, total_bytes
        self._logged_at = time.monotonic()

    def update(self, count: float) -> None:
        self._done_bytes += int(count)
        if time.monotonic() - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = time.monotonic()
            self.close()

    def close(self) -> None:
        total = "unknown" if self._total_bytes is None else self._total_bytes
        logger.info("download=%s bytes=%d total_bytes=%s", self._name, self._done_bytes, total)


def fetch_dataset(recipe: Recipe, destination: Path, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> Path:
    """The folder inside `destination` with train, valid and test; fetched unless it is there already."""
    data = recipe.data
    root = destination / dataset_name(recipe)
    if root.exists():
        _check_has_train(root)
        logger.info("dataset=%s is already there", root)
        return root
    if not (data.url or data.kaggle):
        hint = data.hint or f"Put one folder per label under {root}/train, valid and test."
        raise DownloadError(f"Recipe {recipe.name!r} names nothing to download. {hint}")
    if data.license_note:
        logger.info("licence: %s", data.license_note)
    destination.mkdir(parents=True, exist_ok=True)
    with _unpacking_folder(root) as folder:
        if data.url:
            archive = download_archive(data.url, root.with_name(f"{root.name}.archive"), sha256=data.sha256)
            unpack_archive(archive, folder, max_unpacked_bytes=max_unpacked_bytes)
        else:
            _unpack_kaggle(data.kaggle, root.with_name(f"{root.name}.zip"), folder, max_unpacked_bytes)
        _assemble(folder, root, data)
    if data.url:
        archive.unlink()
    _report(root, data)
    return root


def dataset_name(recipe: Recipe) -> str:
    """Name of the folder that the images end up in, inside the destination."""
    data = recipe.data
    return PurePosixPath(data.archive_root).name or PurePosixPath(data.kaggle).name or recipe.name


def download_archive(url: str, archive: Path, *, sha256: str = "") -> Path:
    """The file at `url` as `archive`: continues a `.part`, checks the sum, appears only when complete."""
    if archive.exists():
        logger.info("archive=%s is already there", archive)
        _check_sum(archive, sha256)
        return archive
    part = archive.with_name(f"{archive.name}.part")
    try:
        _download_rest(url, part)
    except OSError as error:
        raise DownloadError(
            f"{part} cannot be written ({error}); make room or choose another folder."
        ) from error
    _check_sum(part, sha256)
    part.replace(archive)
    return archive


def _download_rest(url: str, part: Path) -> None:
    """The bytes of `url` that `part` lacks, or all of them where the server cannot continue."""
    have_bytes = part.stat().st_size if part.exists() else 0
    response = _open(url, have_bytes)
    if response is None:
        return  # nothing is missing: the last run ended between the last byte and the rename
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have_bytes = 0
        length = response.headers.get("Content-Length", "")
        total_bytes = have_bytes + int(length) if length.isdigit() else None
        progress = _open_progress(part.stem, done_bytes=have_bytes, total_bytes=total_bytes)
        with part.open("ab" if have_bytes else "wb") as sink, closing(progress):
            for chunk in _read_chunks(response, url):
                sink.write(chunk)
                progress.update(len(chunk))
    got_bytes = part.stat().st_size
    if total_bytes is not None and got_bytes != total_bytes:
        raise _broken_off(url, f"after {got_bytes} of {total_bytes} bytes")


def _open(url: str, start_bytes: int) -> http.client.HTTPResponse | None:
    """The response from that byte on, or from 0 (its status tells); None when there is nothing after it."""
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url!r} is not an http or https address; correct [data].url in the recipe.")
    headers = {"Range": f"bytes={start_bytes}-"} if start_bytes else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=RESPONSE_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if start_bytes and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                complete = error.headers.get("Content-Range") == f"bytes */{start_bytes}"
                return None if complete else _open(url, 0)
            raise DownloadError(
                f"{url} answered {error.code} {error.reason}; check [data].url in the recipe."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url} cannot be reached ({error}); check the network and run again.") from error
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and not response.headers.get(
        "Content-Range", ""
    ).startswith(f"bytes {start_bytes}-"):
        response.close()
        return _open(url, 0)
    return response


def _read_chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK_BYTES):  # read() would drop what came before a lost connection
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _broken_off(url, f"({error!r})") from error


def _broken_off(url: str, how: str) -> DownloadError:
    return DownloadError(f"{url} broke off {how}; run the same command again to continue from there.")


def _open_progress(name: str, *, done_bytes: int, total_bytes: int | None) -> _Progress:
    """A bar for a person, lines for a log and where tqdm is not installed (the serving environment)."""
    logged = _LoggedProgress(name, done_bytes=done_bytes, total_bytes=total_bytes)
    if not sys.stderr.isatty():
        return logged
    try:
        from tqdm import tqdm
    except ImportError:
        return logged
    return tqdm(total=total_bytes, initial=done_bytes, desc=name, unit="B", unit_scale=True)


def _check_sum(file: Path, expected: str) -> None:
    """Says the checksum, for the recipe that does not have one yet; a file with the wrong one is deleted."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    logger.info("archive=%s bytes=%d sha256=%s", file, file.stat().st_size, found)
    if expected and found != expected:
        file.unlink()
        raise DownloadError(
            f"{file.name} had sha256 {found}, not {expected}, and was deleted; run again, or correct "
            "[data].sha256 if the archive has changed."
        )


def _unpack_kaggle(name: str, archive: Path, folder: Path, max_unpacked_bytes: int) -> None:
    """A Kaggle data set: from the zip if the user has put it there, or by the user's own client and login."""
    if archive.exists():
        unpack_archive(archive, folder, max_unpacked_bytes=max_unpacked_bytes)
        return
    client = shutil.which("kaggle")
    if client is None:
        raise DownloadError(
            f"No kaggle client is on PATH: install one and sign in, or download the Kaggle data set {name} "
            f"in a browser, save it as {archive} and run this again."
        )
    command = [client, "datasets", "download", "-d", name, "-p", str(folder), "--unzip"]
    logger.info("running %s", " ".join(command))
    status = subprocess.run(command, stdout=2, check=False).returncode  # its talk belongs on stderr
    if status != 0:
        raise DownloadError(
            f"`kaggle datasets download -d {name}` ended with status {status}; see what it printed, check "
            "that you are signed in and may use the data set, and run again."
        )


@contextmanager
def _unpacking_folder(root: Path) -> Iterator[Path]:
    """A folder beside the final one that never survives, not even a killed run: the next one clears it."""
    folder = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _assemble(folder: Path, root: Path, data: Data) -> None:
    """The three folders under their usual names, all else left behind, and `root` appears in one step."""
    top = folder / data.archive_root
    if not (top / data.train_folder).is_dir():
        found = sorted(path.name for path in (top if top.is_dir() else folder).iterdir())[:10]
        raise DownloadError(
            f"The download has no folder {PurePosixPath(data.archive_root) / data.train_folder}, only "
            f"{', '.join(found) or 'nothing'}; correct archive_root and train_folder in [data]."
        )
    assembled = folder / ".assembled"
    assembled.mkdir()
    for channel in ("train", "valid", "test"):
        source = top / getattr(data, f"{channel}_folder")
        if source.is_dir():
            source.rename(assembled / channel)
        else:
            logger.warning("the download has no folder for %s (%s)", channel, source.name)
    assembled.rename(root)


def _check_has_train(root: Path) -> None:
    if not (root / "train").is_dir():
        raise DownloadError(f"{root} is there but has no train folder; move it away and run again.")


def _report(root: Path, data: Data) -> None:
    labels = sum(path.is_dir() for path in (root / "train").iterdir())
    logger.info("dataset=%s labels=%d", root, labels)
    if data.num_classes is not None and labels != data.num_classes:
        logger.warning("the recipe expects %d labels, train has %d", data.num_classes, labels)
