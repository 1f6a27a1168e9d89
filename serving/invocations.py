"""POST /invocations, the one route where a tenth of a millisecond counts, as a WSGI application of its own.

Flask's way to a view and werkzeug's to a body cost as much as all of gunicorn (docs/decisions.md, 71).
"""

from __future__ import annotations

import logging
import math
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.select import select

from serving.codec import wants_explanation
from serving.errors import BadRequest, Overloaded, PayloadTooLarge, RequestError, RequestTimeout
from serving.messages import Answer, Query, internal_error_answer, refusal_answer
from serving.settings import MIB, Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

REQUEST_SECONDS = 60.0  # SageMaker gives one invocation this long
BUFFERED_BYTES = 256 * MIB  # of bodies received or waiting; slow clients could otherwise fill the memory
CHUNK = 1 << 16
TIMEOUT = re.compile(r"(?:^|[,;])\s*timeout=(\d{1,4}(?:\.\d{1,3})?)\s*(?:$|[,;])")

logger = logging.getLogger(__name__)


class Asked(Protocol):
    """What answers: serving.pool.Pool, or a test's stand-in without processes."""

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        """The answer, begun within `seconds` if the client still waits then. Raises RequestError."""


class Informed(Asked, Protocol):
    """One that knows the model."""

    info: dict[str, Any]


class Invocations:
    """The WSGI application."""

    def __init__(self, backend: Informed, explainers: Asked, settings: Settings) -> None:
        self._backend = backend
        self._explainers = explainers
        self._limit = settings.max_payload_mb * MIB
        self._bodies = Budget(BUFFERED_BYTES)
        self._turned_away = TurnedAway()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request, answered whatever comes."""
        try:
            answer = self._answer(environ)
        except Overloaded as error:
            self._turned_away.count()
            answer = refusal_answer(error)
        except RequestError as error:
            logger.info("event=refused status=%d code=%s", error.status, error.code)
            answer = refusal_answer(error)
        except Exception as error:  # the last handler: the traceback goes to the log, not to the client
            logger.error("event=failed path=%s", environ["PATH_INFO"], exc_info=error)
            answer = internal_error_answer()
        headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
        start_response(_status_line(answer.status), headers)
        return [answer.body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        attributes = environ.get("HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES")
        seconds = read_timeout(attributes)
        with self._bodies.reserve(int(environ.get("CONTENT_LENGTH") or self._limit)):
            query = Query(
                self._read_body(environ), environ.get("CONTENT_TYPE"), environ.get("HTTP_ACCEPT"), attributes
            )
            method = self._backend.info.get("explanation", "")
            explains = wants_explanation(query.accept, attributes, method=method)
            asked = self._explainers if explains else self._backend
            return asked.ask(query, seconds=seconds, is_gone=lambda: _client_is_gone(environ))

    def _read_body(self, environ: WSGIEnvironment) -> bytes:
        length = environ.get("CONTENT_LENGTH")
        if length and int(length) > self._limit:
            raise self._too_large()
        try:
            with gevent.Timeout(REQUEST_SECONDS) as timeout:
                if length:
                    return _read_exactly(environ, int(length))
                return self._read_chunks(environ) if "HTTP_TRANSFER_ENCODING" in environ else b""
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            raise RequestTimeout(
                f"The body was not complete after {REQUEST_SECONDS:.0f} s.",
                hint="Send smaller pictures, or send them faster.",
            ) from error

    def _read_chunks(self, environ: WSGIEnvironment) -> bytes:
        chunks, size = [], 0
        while chunk := environ["wsgi.input"].read(CHUNK):
            size += len(chunk)
            if size > self._limit:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The body is larger than {self._limit // MIB} MiB.",
            hint="Send a smaller picture, or raise KENNEL_MAX_PAYLOAD_MB.",
        )


class TurnedAway:
    """A line a second for all that came while the queue was full: one each would take time from the rest."""

    def __init__(self) -> None:
        self._requests = 0
        self._told = -math.inf

    def count(self) -> None:
        """One more."""
        self._requests += 1
        now = time.monotonic()
        if now - self._told >= 1.0:
            logger.info("event=overloaded turned_away=%d", self._requests)
            self._requests, self._told = 0, now


class Budget:
    """Bytes of bodies that may be in memory at once."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """While the context lasts. Raises Overloaded where too much is in memory already."""
        if size > self._free:
            raise Overloaded(1)
        self._free -= size
        try:
            yield
        finally:
            self._free += size


def read_timeout(custom_attributes: str | None) -> float:
    """Seconds the client waits, from `timeout=5` among its attributes; at most SageMaker's own."""
    found = TIMEOUT.search(custom_attributes or "")
    return min(float(found[1]), REQUEST_SECONDS) if found else REQUEST_SECONDS


def _read_exactly(environ: WSGIEnvironment, length: int) -> bytes:
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) < length:
        raise BadRequest(
            f"The body ended after {len(body)} of {length} bytes.", hint="Send the whole picture."
        )
    return body


def _client_is_gone(environ: WSGIEnvironment) -> bool:
    """The connection is closed: nobody waits for the answer."""
    connection = environ.get("gunicorn.socket")
    if connection is None or not select([connection], [], [], 0)[0]:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _status_line(status: int) -> str:
    known = HTTPStatus._value2member_map_.get(status)  # 499 is nginx's, not the RFCs'
    return f"{status} {known.phrase if isinstance(known, HTTPStatus) else 'Client Gone'}"
