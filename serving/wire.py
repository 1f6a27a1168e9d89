"""Messages over a stream socket between the HTTP process and those that predict: fields, then a body.

Both ends are one Python, started by one program, so the fields go in its own format: a third of JSON's time.
"""

from __future__ import annotations

import marshal
import select
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")  # of the fields and of the body, in bytes
_CHUNK = 1 << 16  # read at once: a whole message, where it is no large picture
_LARGE_CHUNK = 1 << 20
_CLOSED = "the other side closed the socket"


class Channel:
    """One end of the socket. Reading and writing may go on at once; neither may in two threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._read = b""  # but not yet asked for

    def send(self, fields: dict[str, Any], body: bytes = b"") -> None:
        """Write one message, of dicts, lists, tuples, strings and Python's own numbers (not NumPy's).

        Raises OSError where the other side is gone, ValueError for a value of another type.
        """
        head = marshal.dumps(fields)
        head = _LENGTHS.pack(len(head), len(body)) + head
        if len(body) <= _CHUNK:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Read one message. Raises EOFError where the other side is gone, OSError where the socket broke."""
        head_length, body_length = _LENGTHS.unpack(self._read_exactly(_LENGTHS.size))
        fields: dict[str, Any] = marshal.loads(self._read_exactly(head_length))
        return fields, self._read_exactly(body_length)

    def wait(self, seconds: float) -> bool:
        """Whether something comes within `seconds`. Raises EOFError where it is the end."""
        if self._read:
            return True
        try:  # what is there is taken along at once
            self._read = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return seconds > 0 and bool(select.select([self._socket], [], [], seconds)[0])
        if not self._read:
            raise EOFError(_CLOSED)
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _read_exactly(self, length: int) -> bytes:
        chunks, missing = [self._read], length - len(self._read)
        while missing > 0:
            chunk = self._socket.recv(min(max(missing, _CHUNK), _LARGE_CHUNK))
            if not chunk:
                raise EOFError(_CLOSED)
            chunks.append(chunk)
            missing -= len(chunk)
        read = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._read = read[length:]
        return read[:length]
