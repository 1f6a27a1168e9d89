"""Folders of images -> uint8 arrays at training resolution, decoded once.

Pillow decodes and resizes outside the GIL, so threads fill all cores without worker processes or /dev/shm.
A set that does not fit the memory budget lies in a file under TMPDIR, mapped into memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.cores import available_cores
from artifact.labels import check_labels
from artifact.preprocess import ImageError, Preprocess, decode_pixels
from training.job import JobError
from training.progress import progress

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .webp .gif .tif .tiff .avif .jp2 .ppm .pgm .pnm .mpo .tga".split()
)
MEMORY_SHARE = 0.5  # of the memory that is free, or of the container's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder:
    """`root/<label>/**/<file>`, as torchvision's ImageFolder, sorted; nothing is read yet."""

    root: Path
    labels: tuple[str, ...]
    paths: tuple[str, ...]  # posix, relative to root: the same file name may occur under several labels
    targets: NDArray[np.int64]  # (num_images,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """A decoded ImageFolder."""

    folder: ImageFolder  # without the unreadable files
    pixels: NDArray[np.uint8]  # (num_images, crop, crop, 3)
    fingerprint: str  # sha256 over every file's path and content
    unreadable: tuple[tuple[str, str], ...]  # path, reason

    def __len__(self) -> int:
        return len(self.folder.paths)


def read_image_folder(root: Path, labels: Sequence[str] | None = None) -> ImageFolder:
    """List a split. `labels` are the training split's; without them the folder names are the labels.

    Raises JobError for no images, a class folder without any, or a label the training split does not have.
    """
    found = find_labels(root)
    if labels is None:
        try:
            labels = check_labels(found)
        except ValueError as error:
            raise JobError(f"{root} needs one folder of images per class: {error}") from error
    unknown = sorted(set(found) - set(labels))
    if unknown:
        raise JobError(
            f"{root} has class folders the training split does not have: {', '.join(unknown[:5])}."
        )
    paths: list[str] = []
    targets: list[int] = []
    for target, label in enumerate(labels):
        files = _image_files(root / label)
        paths += [path.relative_to(root).as_posix() for path in files]
        targets += [target] * len(files)
    if not paths:
        raise JobError(f"{root} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return ImageFolder(
        root=root, labels=tuple(labels), paths=tuple(paths), targets=np.asarray(targets, dtype=np.int64)
    )


def find_labels(root: Path) -> list[str]:
    """Its class folders, sorted."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def decode_images(folder: ImageFolder, preprocess: Preprocess, *, max_unreadable: float) -> ImageSet:
    """Decode a whole split with all cores.

    Unreadable files are left out and listed. Raises JobError when their share is over `max_unreadable`.
    """
    shape = (len(folder.paths), preprocess.crop, preprocess.crop, 3)
    pixels = _allocate(shape)

    def decode(index: int) -> tuple[str, str]:
        body = (folder.root / folder.paths[index]).read_bytes()
        try:
            pixels[index] = decode_pixels(body, preprocess)
            reason = ""
        except ImageError as error:
            reason = str(error)
        return hashlib.sha256(body).hexdigest(), reason

    pool = ThreadPoolExecutor(available_cores())
    try:
        decoded = pool.map(decode, range(len(folder.paths)))
        results = list(progress(decoded, total=len(folder.paths), what=f"decode {folder.root.name}"))
    finally:
        pool.shutdown(cancel_futures=True)  # SIGTERM does not wait for the files that are left

    digest = hashlib.sha256()
    for path, (checksum, _) in zip(folder.paths, results, strict=True):
        digest.update(f"{path} {checksum}\n".encode())
    unreadable = tuple(
        (path, reason) for path, (_, reason) in zip(folder.paths, results, strict=True) if reason
    )
    _check_unreadable(folder, unreadable, max_unreadable)
    if unreadable:
        readable = np.asarray([not reason for _, reason in results])
        pixels = pixels[readable]
        folder = replace(
            folder,
            paths=tuple(path for path, keep in zip(folder.paths, readable, strict=True) if keep),
            targets=folder.targets[readable],
        )
    return ImageSet(folder=folder, pixels=pixels, fingerprint=digest.hexdigest(), unreadable=unreadable)


def _image_files(class_dir: Path) -> list[Path]:
    if not class_dir.is_dir():
        return []
    return sorted(
        path
        for path in class_dir.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _check_unreadable(
    folder: ImageFolder, unreadable: Sequence[tuple[str, str]], max_unreadable: float
) -> None:
    for path, reason in unreadable[:20]:
        logger.warning("skipped %s: %s", folder.root / path, reason)
    share = len(unreadable) / len(folder.paths)
    if share > max_unreadable:
        path, reason = unreadable[0]
        raise JobError(
            f"{len(unreadable)} of {len(folder.paths)} images in {folder.root} cannot be read "
            f"({share:.1%}, allowed max_unreadable={max_unreadable:.1%}); the first: {path}: {reason}"
        )


def memory_budget_bytes() -> int:
    """A set of decoded images larger than this lies in a file."""
    return int(MEMORY_SHARE * _free_memory_bytes())


def describe_pixels(images: ImageSet) -> dict[str, int | str]:
    """Where the decoded images lie, for who looks into why they come late."""
    return {
        "pixels_in": "file" if isinstance(images.pixels, np.memmap) else "memory",
        "pixels_bytes": images.pixels.nbytes,
        "memory_budget_bytes": memory_budget_bytes(),
    }


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    needed_bytes = int(np.prod(shape, dtype=np.int64))
    if needed_bytes <= memory_budget_bytes():
        return np.empty(shape, dtype=np.uint8)
    with tempfile.NamedTemporaryFile(prefix="kennel-pixels-") as file:  # unlinked: gone with the process
        logger.info("pixels_bytes=%d do not fit the memory budget: kept in %s", needed_bytes, file.name)
        file.truncate(needed_bytes)
        return np.memmap(file.name, dtype=np.uint8, mode="r+", shape=shape)


def _free_memory_bytes() -> int:
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    for limit in (
        _read_words("/sys/fs/cgroup/memory.max"),
        _read_words("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit and limit[0].isdigit():
            free = min(free, int(limit[0]))
    return free


def _read_words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []
