"""POST /invocations over one kept-alive connection, again where that may help.

http.client and not requests: the client shares its cores with the server, and costs a fifth of a millisecond
of them per request instead of one and a half.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass

from local.platform import LocalError
from local.transform_request import TransformRequest

FIRST_PAUSE_SECONDS = 0.1  # before the first repetition; each further one waits twice as long
EXCERPT_BYTES = 300
IDLE_ENDS = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class InvocationError(RuntimeError):
    """A mini-batch that got no answer after all repetitions; the message is the last reason."""


class ServerGoneError(LocalError):
    """Nobody listens any more: no other request will be answered either."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server that answered /ping; `is_alive` is false once its process has ended."""

    host: str
    port: int
    is_alive: Callable[[], bool] = lambda: True
    precision: str = ""  # of the answers, as /ping says; empty where the container does not


class Invoker:
    """One thread's connection. `stop` ends its pauses early."""

    def __init__(self, address: Address, request: TransformRequest, stop: threading.Event) -> None:
        self._address, self._request, self._stop = address, request, stop
        self._connection = http.client.HTTPConnection(
            address.host, address.port, timeout=request.timeout_seconds
        )
        self._headers = {
            name: value
            for name, value in (("Content-Type", request.content_type), ("Accept", request.accept))
            if value
        }

    def invoke(self, parts: list[bytes], *, is_streamed: bool) -> bytes:
        """The answer's body. Repeated after a broken connection, a timeout, 429 and 5xx; not after other 4xx.

        Which statuses the service repeats is not documented. Raises InvocationError, ServerGoneError.
        """
        reason = ""
        for attempt in range(1 + self._request.max_retries):
            if attempt:
                self._stop.wait(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                status, answer = self._send(parts, is_streamed)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                self._connection.close()  # reconnects at the next request
                self._check_alive(error, is_last=attempt == self._request.max_retries)
                continue
            if status == http.HTTPStatus.OK:
                return answer
            reason = f"{status} {answer[:EXCERPT_BYTES].decode(errors='replace')}".strip()
            if status < http.HTTPStatus.INTERNAL_SERVER_ERROR and status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
        raise InvocationError(reason)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _send(self, parts: list[bytes], is_streamed: bool) -> tuple[int, bytes]:
        """Status and body. A kept-alive connection the server closed meanwhile costs no repetition."""
        was_open = self._connection.sock is not None
        try:
            return self._exchange(parts, is_streamed)
        except IDLE_ENDS:
            self._connection.close()
            if not was_open:
                raise
            return self._exchange(parts, is_streamed)

    def _exchange(self, parts: list[bytes], is_streamed: bool) -> tuple[int, bytes]:
        if is_streamed:
            headers = {**self._headers, "Transfer-Encoding": "chunked"}
            self._connection.request("POST", "/invocations", iter(parts), headers, encode_chunked=True)
        else:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._connection.request("POST", "/invocations", body, self._headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _check_alive(self, error: Exception, *, is_last: bool) -> None:
        if not self._address.is_alive() or (is_last and isinstance(error, ConnectionRefusedError)):
            raise ServerGoneError(
                f"The server at {self._address.host}:{self._address.port} has ended ({type(error).__name__})."
            )
