"""gunicorn's gevent worker, made to end in seconds without losing a request.

gunicorn's own waits for idle keep-alive connections until they time out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from socket import socket
from types import FrameType, TracebackType
from typing import Any, cast

import gevent
from gunicorn import SERVER
from gunicorn.http.body import Body
from gunicorn.http.errors import InvalidResponseHeader  # type: ignore[attr-defined] # the stubs are older
from gunicorn.http.wsgi import HEADER_VALUE_RE
from gunicorn.util import http_date
from gunicorn.workers.ggevent import GeventWorker

from serving import boot
from serving.messages import INVOCATIONS

MAX_READ_STEP = 1 << 20
LINGER_SECONDS = 1.0  # for a request that is on its way over an idle connection


class _ClosedWhileIdle(Exception):
    """Thrown into the greenlet of a connection that waits for its next request."""


class _IdleConnection:
    """The wait for a connection's next request, for no longer than the keep-alive time."""

    def __init__(self, worker: Front) -> None:
        self._worker = worker
        self._greenlet = gevent.getcurrent()
        self._timeout = gevent.Timeout(worker.cfg.keepalive if worker.alive else LINGER_SECONDS)

    def __enter__(self) -> None:
        self._worker.idle.add(self)
        self._timeout.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._worker.idle.discard(self)
        self._timeout.close()
        return error is self._timeout or kind is _ClosedWhileIdle

    def close(self) -> None:
        """From another greenlet: stop waiting, unless the request has come."""
        if self in self._worker.idle:
            gevent.kill(self._greenlet, _ClosedWhileIdle)


class _Body(Body):
    """A request's body, read in large pieces: gunicorn's own copies what it has read ahead at every step."""

    answered = False

    def read(self, size: int | None = None) -> bytes:
        """As a file's; what is left after the answer gunicorn asks for by the KiB, to throw it away."""
        if size is None or size < 0 or self.buf.tell():
            return bytes(super().read(size))
        size = MAX_READ_STEP if self.answered else size
        return bytes(self._read_reader(size))  # type: ignore[attr-defined] # the stubs are older


class _OneSend:
    """A connection that sends an answer's head along with its body: each send wakes whoever waits for it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._held = b""

    def sendall(self, data: bytes) -> None:
        """The first piece, the head, waits for the next."""
        if not self._held:
            self._held = data
        else:
            held, self._held = self._held, b""
            self._connection.sendall(held + data)

    def flush(self) -> None:
        """What has waited in vain: an answer without a body."""
        held, self._held = self._held, b""
        if held:
            self._connection.sendall(held)

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """A body from a file, after its head."""
        self.flush()
        return self._connection.sendfile(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Clock:
    """The Date header, written once a second."""

    _second = 0
    _text = ""

    def date(self) -> str:
        """Now, as RFC 9110 has it."""
        now = int(time.time())
        if now != self._second:
            self._second, self._text = now, http_date(now)
        return self._text


class Front(GeventWorker):
    """The HTTP process: a greenlet per connection, so that slow clients cost no core."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: set[_IdleConnection] = set()
        self._clock = _Clock()

    def timeout_ctx(self) -> _IdleConnection:  # type: ignore[override] # the stubs say None
        """Around the wait for the next request."""
        return _IdleConnection(self)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """One request of a connection."""
        req.body = _Body(req.body.reader)
        connection = _OneSend(sock)
        try:
            if environ := self._read_plain_invocation(req, sock):
                with suppress(gevent.GreenletExit, SystemExit):  # as gunicorn's own does
                    self._invoke(environ, sock)
                return None
            return super().handle_request(listener_name, req, cast(socket, connection), addr)
        finally:
            connection.flush()
            req.body.answered = True

    def _read_plain_invocation(self, req: Any, sock: socket) -> dict[str, Any] | None:
        """The environ of a POST /invocations as nearly all are, with what is read of it; of another None.

        gunicorn's own, and its response's checks, cost a sixth of the HTTP process (docs/decisions.md, 114).
        """
        if req.path != INVOCATIONS or req.method != "POST" or req.version != (1, 1) or not self.alive:
            return None
        if req._expected_100_continue or req.should_close() or self.cfg.accesslog:
            return None
        environ = {"HTTP_" + name.replace("-", "_"): value for name, value in req.headers}
        if len(environ) < len(req.headers) or "HTTP_SCRIPT_NAME" in environ:
            return None
        return environ | {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": INVOCATIONS,
            "CONTENT_TYPE": environ.get("HTTP_CONTENT_TYPE"),
            "CONTENT_LENGTH": environ.get("HTTP_CONTENT_LENGTH"),
            "wsgi.input": req.body,
            "gunicorn.socket": sock,
        }

    def _invoke(self, environ: dict[str, Any], sock: socket) -> None:
        """Send the app's answer, which has a Content-Length, over a connection that stays open."""
        head = []

        def start_response(status: str, headers: Iterable[tuple[str, str]]) -> None:
            for name, value in headers:  # a content type may be the artifact's own
                if not HEADER_VALUE_RE.fullmatch(value):
                    raise InvalidResponseHeader(name)
            head.append(f"HTTP/1.1 {status}\r\nServer: {SERVER}\r\nDate: {self._clock.date()}\r\n")
            head.append("Connection: keep-alive\r\n")
            head.extend(f"{name}: {value}\r\n" for name, value in headers)

        body = b"".join(self.wsgi(environ, start_response))
        sock.sendall("".join([*head, "\r\n"]).encode("latin-1") + body)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: requests in hand are finished, each connection is closed after its answer."""
        super().handle_exit(sig, frame)
        boot.start_draining()
        for connection in list(self.idle):
            gevent.spawn_later(LINGER_SECONDS, connection.close)
