"""Every file of an ImageFolder set, read once and decoded once at reduced scale: what it is and how it looks.

Files are what the trainer would look at, and decode as the trainer decodes them. No file stops the run.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

import artifact.formats
import artifact.preprocess
from artifact.cores import available_cores
from artifact.libtiff import set_libtiff_handlers
from artifact.preprocess import DECODER_ERRORS, ImageError, decode_image, open_image
from training.doctor.cache import Cache
from training.job import find_splits
from training.progress import progress

Floats = NDArray[np.float32]

LUMA_SIDE = 128  # brightness, contrast and blur are measured on 128 x 128
SIGNATURE_SIDE = 32
COLOURS_SIDE = 4
NOISE_SHARE = 0.02  # of the coefficients' root mean square
HASH_SIDE = 8  # the lowest 8 x 8 frequencies of the signature, a bit each
MAX_FILE_BYTES = 1 << 28  # larger files are hashed, not decoded
FILES_PER_TASK = 16
ORIENTATION_TAG = 0x0112

ENDS = {  # how a format begins -> how it ends
    b"\xff\xd8": b"\xff\xd9",
    b"\x89PNG": b"IEND\xaeB`\x82",
    b"GIF8": b"\x3b",
}
EARLY_END = re.compile(r"truncat|end of file|\beof\b|not enough|too short|unexpected end", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What one look at one file tells."""

    path: str  # posix, relative to DATA
    split: str  # "train", "valid", "test", or "" where DATA has no splits
    label: str  # class folder name
    size_bytes: int
    sha256: str  # of the bytes; "" where they cannot be read
    reason: str  # "" or why it cannot be decoded
    truncated: bool  # unreadable because it ends early, as far as can be told
    format: str  # Pillow's name, "JPEG"; "" where unreadable, as below
    mode: str  # Pillow's, as stored
    width: int  # as stored, before EXIF orientation; 0 where unreadable
    height: int
    orientation: int  # EXIF's, 1 to 8; 1 where absent
    frames: int  # > 1: animated, or several pages (the further views of an MPO photo do not count)
    brightness: float  # mean luma of the upright picture, 0-255
    contrast: float  # standard deviation of luma
    blur: float  # variance of the Laplacian at LUMA_SIDE: small = blurred
    hash: int  # 64-bit perceptual hash of the upright picture
    mirrored_hash: int  # of its mirror image
    signature: bytes = b""  # luma of SIGNATURE_SIDE x SIGNATURE_SIDE, to verify near duplicates
    colours: bytes = b""  # COLOURS_SIDE x COLOURS_SIDE x (Cb, Cr), likewise


UNREADABLE = FileFacts(
    path="",
    split="",
    label="",
    size_bytes=0,
    sha256="",
    reason="",
    truncated=False,
    format="",
    mode="",
    width=0,
    height=0,
    orientation=1,
    frames=1,
    brightness=0.0,
    contrast=0.0,
    blur=0.0,
    hash=0,
    mirrored_hash=0,
)


def list_files(data: Path) -> list[tuple[str, str, str]]:
    """(path, split, label), sorted: every file in a class folder but hidden ones, whatever its suffix.

    Splits are the folders the trainer would find; without a training split, DATA's folders are the classes.
    """
    splits = find_splits({"train": data})
    if splits == {"train": data}:
        splits = {"": data}
    found = []
    for split, root in splits.items():
        for class_dir in root.iterdir():
            if class_dir.is_dir() and not class_dir.name.startswith("."):
                paths = (path.relative_to(data).as_posix() for path in _files_in(class_dir))
                found += [(path, split, class_dir.name) for path in paths]
    return sorted(found)


def examine(data: Path, *, cache: Cache | None = None) -> list[FileFacts]:
    """Facts of every file, in the order of `list_files`, with all cores."""
    files = list_files(data)
    tasks = [files[start : start + FILES_PER_TASK] for start in range(0, len(files), FILES_PER_TASK)]

    def look(task: Sequence[tuple[str, str, str]]) -> list[FileFacts]:
        return [
            replace(_look_up(data / path, cache), path=path, split=split, label=label)
            for path, split, label in task
        ]

    pool = ThreadPoolExecutor(available_cores())
    try:
        with _quiet_pillow():
            examined = itertools.chain.from_iterable(pool.map(look, tasks))
            return list(progress(examined, total=len(files), what=f"examine {data.name}"))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the files that are left


def examine_bytes(body: bytes) -> FileFacts:
    """Facts of a file's content; path, split and label are left empty."""
    facts = replace(UNREADABLE, size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    try:
        image = decode_image(body, shorter_side=LUMA_SIDE)
    except ImageError as error:
        return replace(facts, reason=str(error), truncated=_ends_early(body, str(error)))
    stored = open_image(body)
    luma = _luma(image)
    small = luma.reshape(SIGNATURE_SIDE, LUMA_SIDE // SIGNATURE_SIDE, SIGNATURE_SIDE, -1).mean(axis=(1, 3))
    return replace(
        facts,
        format=stored.format or "",
        mode=stored.mode,
        width=stored.width,
        height=stored.height,
        orientation=_orientation(stored, body),
        frames=_num_frames(stored),
        brightness=float(luma.mean()),
        contrast=float(luma.std()),
        blur=_laplacian_variance(luma),
        hash=perceptual_hash(small),
        mirrored_hash=perceptual_hash(small[:, ::-1]),
        signature=np.rint(small).astype(np.uint8).tobytes(),
        colours=_chroma(image).tobytes(),
    )


def perceptual_hash(small: Floats) -> int:
    """Which of the 8 x 8 lowest DCT coefficients of a luma square are positive."""
    return int.from_bytes(np.packbits(hash_margins(small) > 0.0).tobytes(), "big")


def hash_margins(small: Floats) -> Floats:
    """(..., 8, 8): how far above what counts as positive each coefficient is; 0 for the mean: it has no bit.

    A symmetric picture's odd coefficients are zero but for noise: they are to be the same bit in every copy.
    """
    basis = dct_basis()
    coefficients = (basis @ small @ basis.T).astype(np.float32, copy=False)
    coefficients[..., 0, 0] = 0.0
    noise = NOISE_SHARE * np.sqrt((coefficients**2).mean(axis=(-1, -2), keepdims=True))
    margins: Floats = coefficients - noise
    margins[..., 0, 0] = 0.0
    return margins


@functools.cache
def facts_version() -> str:
    """Changes with everything the facts depend on: this file, the decoder, Pillow."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for source in (__file__, artifact.preprocess.__file__, artifact.formats.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


def _files_in(class_dir: Path) -> Iterator[Path]:
    return (path for path in class_dir.rglob("*") if not path.name.startswith(".") and path.is_file())


def _look_up(path: Path, cache: Cache | None) -> FileFacts:
    """From the cache by stat, then by content; else decoded."""
    try:
        if cache is None:
            return _read_facts(path)
        status = path.stat()  # before the bytes are read: a later change shows
        checksum = cache.find_checksum(path, status)
        known = _parse_facts(cache.find_facts(checksum, facts_version())) if checksum else None
        if known is not None:
            return known
        facts = _read_facts(path, lambda sha256: _parse_facts(cache.find_facts(sha256, facts_version())))
    except OSError as error:
        return replace(UNREADABLE, reason=f"Cannot be read ({error.strerror or error}).")
    cache.keep_checksum(path, status, facts.sha256)
    cache.keep_facts(facts.sha256, facts_version(), _encode_facts(facts))
    return facts


def _read_facts(path: Path, find: Callable[[str], FileFacts | None] = lambda _: None) -> FileFacts:
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > MAX_FILE_BYTES:
            reason = f"The file has {size_bytes} bytes; files of more than {MAX_FILE_BYTES} are not decoded."
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return replace(UNREADABLE, size_bytes=size_bytes, sha256=sha256, reason=reason)
        body = file.read()
    return find(hashlib.sha256(body).hexdigest()) or examine_bytes(body)


def _encode_facts(facts: FileFacts) -> str:
    stored = asdict(facts)
    for name in ("signature", "colours"):
        stored[name] = base64.b64encode(stored[name]).decode()
    for name in ("path", "split", "label"):
        del stored[name]
    return json.dumps(stored)


def _parse_facts(text: str | None) -> FileFacts | None:
    """None for what this version would not have written."""
    if text is None:
        return None
    try:
        stored: dict[str, Any] = json.loads(text)
        for name in ("signature", "colours"):
            stored[name] = base64.b64decode(stored[name])
        return FileFacts(path="", split="", label="", **stored)
    except (ValueError, TypeError, KeyError):
        return None


def _luma(image: Image.Image) -> Floats:
    gray = image.convert("L").resize((LUMA_SIDE, LUMA_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(gray, dtype=np.float32)


def _chroma(image: Image.Image) -> NDArray[np.uint8]:
    small = image.resize((COLOURS_SIDE, COLOURS_SIDE), Image.Resampling.BOX).convert("YCbCr")
    return np.asarray(small)[:, :, 1:]


def _laplacian_variance(luma: Floats) -> float:
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4.0 * centre
    return float(laplacian.var())


@functools.cache
def dct_basis() -> Floats:
    """The first rows of the DCT-II matrix, (HASH_SIDE, SIGNATURE_SIDE)."""
    frequency, position = np.ogrid[:HASH_SIDE, :SIGNATURE_SIDE]
    basis: Floats = np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIGNATURE_SIDE)).astype(np.float32)
    return basis


def _orientation(stored: Image.Image, body: bytes) -> int:
    if stored.format == "PNG" and b"eXIf" not in body and b"rientation" not in body:
        return 1  # Pillow would decode the whole picture to find that out
    try:
        orientation = stored.getexif().get(ORIENTATION_TAG, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _num_frames(stored: Image.Image) -> int:
    if stored.format == "MPO":  # a phone's photo: the other frames are previews, gain maps, the second eye
        return 1
    try:
        return max(1, int(getattr(stored, "n_frames", 1)))
    except DECODER_ERRORS:
        return 1


def _ends_early(body: bytes, reason: str) -> bool:
    if not body or EARLY_END.search(reason):
        return True
    return any(body.startswith(start) and end not in body[-64:] for start, end in ENDS.items())


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """No warnings, Pillow or libtiff lines about each odd file; entered once, around all threads."""
    pillow = logging.getLogger("PIL")
    level = pillow.level
    pillow.setLevel(logging.CRITICAL)
    handlers = set_libtiff_handlers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pillow.setLevel(level)
        set_libtiff_handlers(handlers)
