"""Hostile requests: real and odd pictures in every content type, damaged. Pure: a seed gives the same."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from serving.messages import CSV, JSON, JSON_LINES, MULTIPART, NPY, Query

BOUNDARY = "kennel"
BODY_BYTES = 1 << 20  # larger seeds only make it slower
CONTENT_TYPES = (
    "image/jpeg",
    "application/octet-stream",
    NPY,
    JSON,
    JSON_LINES,
    f"{MULTIPART}; boundary={BOUNDARY}",
    "",
    "text/html",
    f"{MULTIPART}; boundary",
)
ACCEPTS = (
    "",
    JSON,
    JSON_LINES,
    CSV,
    NPY,
    f"{JSON}; top=2",
    "*/*;q=0.1, text/html",
    "image/png",
    f"{NPY}; top=1",
)
# Where a length, a size or a count is read, these hurt.
MAGIC = (
    b"\0",
    b"\xff",
    b"\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\0",
    b"[{",
)


def read_seeds(folders: Sequence[Path], *, limit: int = 2000) -> list[bytes]:
    """The small files below the folders, evenly chosen, and some bodies that are not pictures."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    chosen = paths[:: max(1, len(paths) // limit)]
    bodies = [path.read_bytes() for path in chosen if path.stat().st_size <= BODY_BYTES]
    return [*bodies, b"", b"{}", b"text", b"<html>", b"PK\x03\x04", b"\x93NUMPY\x01\x00"]


def wrap(body: bytes, content_type: str) -> bytes:
    """The picture as a body of that type; two of it where there may be many."""
    kind = content_type.partition(";")[0]
    text = base64.b64encode(body).decode()
    if kind == JSON:
        return json.dumps({"instances": [text, {"b64": text}]}).encode()
    if kind == JSON_LINES:
        return f"{json.dumps(text)}\n{json.dumps({'b64': text})}\n".encode()
    if kind == MULTIPART:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode()
        return (head + body + b"\r\n") * 2 + f"--{BOUNDARY}--\r\n".encode()
    if kind == NPY:
        return _as_array(body)
    return body


def _as_array(body: bytes) -> bytes:
    """Its bytes as raw pixels, or as floats, by turns."""
    buffer = io.BytesIO()
    pixels = np.frombuffer(body, np.uint8)[: len(body) // 24 * 24].reshape(-1, 8, 3)
    np.save(buffer, pixels if len(body) % 2 else pixels.astype(np.float32)[np.newaxis], allow_pickle=False)
    return buffer.getvalue()


def _flip(body: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)


def _cut(body: bytearray, draw: random.Random) -> None:
    del body[draw.randrange(len(body)) :]


def _delete(body: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(body))
    del body[start : start + draw.choice((1, 4, 64, 4096))]


def _repeat(body: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(body))
    body[start:start] = body[start : start + draw.choice((1, 4, 64, 4096))]


def _magic(body: bytearray, draw: random.Random) -> None:
    start = min(draw.randrange(len(body)), draw.choice((16, 64, 512, len(body))))
    value = draw.choice(MAGIC)
    body[start : start + len(value)] = value


def _noise(body: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(body))
    body[start : start + 16] = draw.randbytes(16)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _cut,
    _delete,
    _repeat,
    _magic,
    _noise,
)


def damage(body: bytes, draw: random.Random) -> bytes:
    """A few random changes; every eighth body stays as it is."""
    damaged = bytearray(body)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 4, 8))):
        if damaged:
            draw.choice(DAMAGES)(damaged, draw)
    return bytes(damaged)


def draw_query(seeds: Sequence[bytes], draw: random.Random) -> Query:
    """One hostile request: the picture is damaged before it is wrapped, or the wrapping is."""
    content_type = draw.choice(CONTENT_TYPES)
    picture = draw.choice(seeds)
    if draw.random() < 0.5:
        body = wrap(damage(picture, draw), content_type)
    else:
        body = damage(wrap(picture, content_type), draw)
    return Query(body, content_type or None, draw.choice(ACCEPTS) or None)
