"""Objects into records, records into mini-batches: SplitType, BatchStrategy and MaxPayloadInMB acted out.

Binary records carry a frame of magic number, length and padding. As documented it is removed with
SingleRecord and stays with MultiRecord, where the container needs it to find the records again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

RECORDIO_MAGIC = 0xCED7230A  # of MXNet's RecordIO: magic, 3 bits of part + 29 of length, data, padding to 4
WHOLE, FIRST, MIDDLE, LAST = range(4)  # a record that contains the magic number comes in parts


class SplitError(ValueError):
    """An object that cannot be split, or a record over the limit; the message names it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record alone, and as it lies in the object."""

    content: bytes
    framed: bytes


def split_records(file: BinaryIO, split: str) -> Iterator[Record]:
    """The object's records, read as they are asked for. Raises SplitError for a broken frame."""
    return _SPLITTERS[split](file)


@dataclass(frozen=True, slots=True)
class Payload:
    """One request: what is sent of each record, and the records themselves for a join."""

    parts: list[bytes]
    records: list[bytes]


def build_payloads(
    records: Iterable[Record],
    send: Callable[[bytes], bytes],
    *,
    is_single_record: bool,
    max_payload_bytes: int | None,
) -> Iterator[Payload]:
    """One request after another: a record each, or as many as fit; `send` says what of a record goes.

    Raises SplitError for a record that is too large alone: the whole object fails then.
    """
    payload, size = Payload([], []), 0
    for number, record in enumerate(records, start=1):
        part = send(record.content if is_single_record else record.framed)
        if max_payload_bytes and len(part) > max_payload_bytes:
            raise SplitError(
                f"Record {number} has {len(part)} bytes, over MaxPayloadInMB: {max_payload_bytes}."
            )
        is_full = is_single_record or (max_payload_bytes and size + len(part) > max_payload_bytes)
        if payload.parts and is_full:
            yield payload
            payload, size = Payload([], []), 0
        payload.parts.append(part)
        payload.records.append(record.content)
        size += len(part)
    if payload.parts:
        yield payload


def _split_whole(file: BinaryIO) -> Iterator[Record]:
    content = file.read()
    yield Record(content, content)


def _split_lines(file: BinaryIO) -> Iterator[Record]:
    """A line keeps its ending: the payloads joined are the object again."""
    for line in file:
        yield Record(line, line)


def _split_tfrecord(file: BinaryIO) -> Iterator[Record]:
    """uint64 length, its checksum, data, its checksum; the checksums are the container's to verify."""
    while header := file.read(12):
        (length,) = struct.unpack("<Q", _whole(header, 12)[:8])
        data = _read(file, length + 4)
        yield Record(data[:length], header + data)


def _split_recordio(file: BinaryIO) -> Iterator[Record]:
    content, framed = b"", b""
    while header := file.read(8):
        magic, word = struct.unpack("<II", _whole(header, 8))
        if magic != RECORDIO_MAGIC:
            raise SplitError(
                f"The object is not RecordIO: {magic:#x} stands where {RECORDIO_MAGIC:#x} should."
            )
        part, length = word >> 29, word & ((1 << 29) - 1)
        padded = _read(file, length + -length % 4)
        content += (struct.pack("<I", RECORDIO_MAGIC) if part in (MIDDLE, LAST) else b"") + padded[:length]
        framed += header + padded
        if part in (WHOLE, LAST):
            yield Record(content, framed)
            content, framed = b"", b""
    if framed:
        raise SplitError("The object ends inside a record.")


def _read(file: BinaryIO, count: int) -> bytes:
    return _whole(file.read(count), count)


def _whole(data: bytes, count: int) -> bytes:
    if len(data) != count:
        raise SplitError("The object ends inside a record.")
    return data


_SPLITTERS: dict[str, Callable[[BinaryIO], Iterator[Record]]] = {
    "None": _split_whole,
    "Line": _split_lines,
    "RecordIO": _split_recordio,
    "TFRecord": _split_tfrecord,
}
