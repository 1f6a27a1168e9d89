"""One keep-alive connection to the server, written so that it knows what happened to every byte.

HTTP libraries retry, pool and hide when the last byte was sent and whether the peer had hung up by then;
that is what the ledger is about. It also costs little processor time beside the server: three system calls.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from chaos.ledger import Entry, Fate

ANSWER_SECONDS = 65.0  # longer than SageMaker waits
CHUNK_BYTES = 65536
IDLE_SECONDS = 60.0  # then SageMaker opens another connection, before the server hangs up on this one


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Connection:
    """Opened at the first request and again after it was hung up on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._answered = 0
        self._last = 0.0  # answer, time.monotonic()

    async def exchange(self, request: bytes, entry: Entry, *, seconds: float = ANSWER_SECONDS) -> None:
        """Send, await the answer, and write down the fate; never raises for what a server may do."""
        if time.monotonic() - self._last > IDLE_SECONDS:
            self.close()
        try:
            async with asyncio.timeout(seconds):
                await self._exchange(request, entry)
        except TimeoutError:
            self._finish(entry, Fate.TIMED_OUT)
        except OSError:  # refused, or out of our own descriptors
            self._finish(entry, Fate.NOT_CONNECTED)

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._answered = None, 0

    async def _exchange(self, request: bytes, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        entry.reused = self._answered > 0
        if self._socket is None:
            self._socket = await connect(self._port)
        connection = self._socket
        try:
            await loop.sock_sendall(connection, request)
            entry.sent = time.monotonic()
            if _has_hung_up(connection):
                return self._finish(entry, Fate.CLOSED_BEFORE_SENT)
        except ConnectionError:  # the rest cannot be sent, but a refusal may have come before (413)
            pass
        received = bytearray()
        try:
            response = await receive(connection, received)
        except ConnectionError:
            if entry.sent is None:
                return self._finish(entry, Fate.CLOSED_BEFORE_SENT)
            return self._finish(entry, Fate.CUT_OFF if received else Fate.RESET)
        except EOFError:
            return self._finish(entry, Fate.CUT_OFF if entry.sent else Fate.CLOSED_BEFORE_SENT)
        self._answered, self._last = self._answered + 1, time.monotonic()
        entry.status, entry.worker = response.status, response.headers.get("x-kennel-worker", "")
        self._finish(entry, judge(response))
        if response.headers.get("connection", "").lower() == "close":
            self.close()

    def _finish(self, entry: Entry, fate: Fate) -> None:
        entry.ended, entry.fate = time.monotonic(), fate
        if fate not in (Fate.ANSWERED, Fate.TURNED_AWAY, Fate.FAILED):
            self.close()


def judge(response: Response) -> Fate:
    """What an answer means: 503 is a refusal only where it says when to come back."""
    if response.status < 500:
        return Fate.ANSWERED
    if response.status == 503 and "retry-after" in response.headers:
        return Fate.TURNED_AWAY
    return Fate.FAILED


def build_request(path: str, body: bytes | None = None, content_type: str = "image/jpeg") -> bytes:
    """The bytes of a GET, or with a body of a POST."""
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body is not None:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + (body or b"")


async def connect(port: int) -> socket.socket:
    """Raises OSError."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


async def receive(connection: socket.socket, received: bytearray) -> Response:
    """One answer; of a body in chunks all bytes. Raises ConnectionError, EOFError where the stream ends."""
    while b"\r\n\r\n" not in received:
        await _receive_more(connection, received)
    head, _, _ = bytes(received).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = len(head) + 4 + int(headers.get("content-length", "0"))
    in_chunks = headers.get("transfer-encoding", "").lower() == "chunked"
    while len(received) < length or (in_chunks and not received.endswith(b"\r\n0\r\n\r\n")):
        await _receive_more(connection, received)
    body = received[len(head) + 4 : None if in_chunks else length]
    return Response(int(first.split()[1]), headers, bytes(body))


async def _receive_more(connection: socket.socket, received: bytearray) -> None:
    chunk = await asyncio.get_running_loop().sock_recv(connection, CHUNK_BYTES)
    if not chunk:
        raise EOFError
    received += chunk


def _has_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
