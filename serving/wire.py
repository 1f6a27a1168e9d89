"""Messages over a stream socket between the HTTP process and those that predict: JSON fields, then a body."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")  # of the JSON and of the body, in bytes
_CHUNK = 1 << 20


def send(sock: socket.socket, fields: dict[str, Any], body: bytes = b"") -> None:
    """Write one message. Raises OSError where the other side is gone."""
    head = json.dumps(fields).encode()
    sock.sendall(_LENGTHS.pack(len(head), len(body)) + head)
    if body:
        sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Read one message. Raises EOFError where the other side is gone, OSError where the socket broke."""
    head_length, body_length = _LENGTHS.unpack(_read_exactly(sock, _LENGTHS.size))
    fields: dict[str, Any] = json.loads(_read_exactly(sock, head_length))
    return fields, _read_exactly(sock, body_length)


def _read_exactly(sock: socket.socket, length: int) -> bytes:
    chunks = []
    while length:
        chunk = sock.recv(min(length, _CHUNK))
        if not chunk:
            raise EOFError("the other side closed the socket")
        chunks.append(chunk)
        length -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
