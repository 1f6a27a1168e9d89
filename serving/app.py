"""HTTP: /ping, /invocations and /execution-parameters, and the one place where errors become answers."""

from __future__ import annotations

import logging
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from flask import Flask, Response, request
from gevent.select import select
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from serving.codec import wants_explanation
from serving.errors import Overloaded, PayloadTooLarge, RequestError, RequestTimeout
from serving.explainers import Explainers
from serving.logs import MAX_ID_CHARACTERS, about
from serving.messages import (
    CUSTOM_ATTRIBUTES,
    JSON,
    REQUEST_ID,
    Answer,
    Query,
    encode_json,
    error_answer,
    refusal_answer,
)
from serving.openapi import build_openapi
from serving.processes import start_explainer
from serving.settings import BATCH_PRODUCT_MB, MIB, Settings
from serving.try_it import add_page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from serving.metrics import Metrics

PRECISION = "X-Kennel-Precision"  # of the answers, for whoever compares them with the trainer's
REQUEST_SECONDS = 60.0  # SageMaker gives one invocation this long

PHOTOGRAPH_MB = 6  # SageMaker's own default
BUFFERED_BYTES = 256 * MIB  # of bodies received or waiting; slow clients could otherwise fill the memory
TIMEOUT = re.compile(r"(?:^|[,;])\s*timeout=(\d{1,4}(?:\.\d{1,3})?)\s*(?:$|[,;])")

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What answers: serving.pool.Pool, or a test's stand-in without processes."""

    info: dict[str, Any]

    @property
    def capacity(self) -> int:
        """Requests that may be in hand at once."""

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        """The answer, begun within `seconds` if the client still waits then. Raises RequestError."""

    def unhealthy_reason(self) -> str | None:
        """Why /ping should fail now, in one word; None while all is well."""


def create_app(backend: Backend, settings: Settings, metrics: Metrics) -> Flask:
    """The WSGI application before the processes that predict."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_payload_mb * MIB
    bodies = Budget(BUFFERED_BYTES)
    explainers = Explainers(start_explainer, stuck_seconds=settings.stuck_seconds)

    @app.route("/ping", methods=["GET", "POST"])  # SageMaker's guide names both
    def ping() -> Response:
        if reason := backend.unhealthy_reason():
            return Response(encode_json({"status": reason}), status=503, content_type=JSON)
        return Response(status=HTTPStatus.OK, headers={PRECISION: backend.info["precision"]})

    @app.post("/invocations")
    def invocations() -> Response:
        attributes = request.headers.get(CUSTOM_ATTRIBUTES)
        seconds = read_timeout(attributes)
        with bodies.reserve(request.content_length or settings.max_payload_mb * MIB):
            query = Query(_read_body(), request.content_type, request.headers.get("Accept"), attributes)
            method = backend.info.get("explanation", "")
            explains = wants_explanation(query.accept, attributes, method=method)
            asked = explainers if explains else backend
            return _to_response(asked.ask(query, seconds=seconds, is_gone=_client_is_gone))

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        parameters = build_execution_parameters(settings, capacity=backend.capacity)
        return Response(encode_json(parameters), content_type=JSON)

    @app.get("/metrics")
    def show_metrics() -> Response:
        body, content_type = metrics.render()
        return Response(body, content_type=content_type)

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(encode_json(build_openapi()), content_type=JSON)

    if settings.page:
        add_page(app, backend)
    app.wsgi_app = Observed(app.wsgi_app, metrics)  # type: ignore[method-assign]
    app.register_error_handler(RequestError, answer_request_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_unexpected_error)
    return app


class Observed:
    """WSGI around the app: every request has an id, which the log and the answer carry, and is counted."""

    def __init__(self, app: WSGIApplication, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        request_id = environ.get("HTTP_X_REQUEST_ID", "")[:MAX_ID_CHARACTERS] or uuid.uuid4().hex

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            self._metrics.count_request(environ["PATH_INFO"], int(status[:3]))
            return start_response(status, [*headers, (REQUEST_ID, request_id)], *error)

        self._metrics.in_flight.inc()
        try:
            with about(request_id, environ.get("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID")):
                return self._app(environ, start)
        finally:
            self._metrics.in_flight.dec()


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


def build_execution_parameters(settings: Settings, *, capacity: int) -> dict[str, int | str]:
    """What Batch Transform asks for before the first record.

    `capacity` is how many requests this instance's processes take at once, their sockets' places included:
    with as many in flight none of them ever waits for the network. What SageMaker's limit on the product then
    leaves for a payload is its size, yet never less than a photograph's.
    """
    payload_mb = settings.batch_payload_mb
    if payload_mb is None:
        payload_mb = max(PHOTOGRAPH_MB, BATCH_PRODUCT_MB // capacity)
    payload_mb = min(payload_mb, settings.max_payload_mb)
    concurrency = settings.batch_concurrency or capacity
    return {
        "MaxConcurrentTransforms": max(1, min(concurrency, BATCH_PRODUCT_MB // max(1, payload_mb))),
        "BatchStrategy": settings.batch_strategy,
        "MaxPayloadInMB": payload_mb,
    }


def read_timeout(custom_attributes: str | None) -> float:
    """Seconds the client waits, from `timeout=5` among its attributes; at most SageMaker's own."""
    found = TIMEOUT.search(custom_attributes or "")
    return min(float(found[1]), REQUEST_SECONDS) if found else REQUEST_SECONDS


def answer_request_error(error: RequestError) -> Response:
    """What the server refuses before it reaches a process that predicts."""
    logger.info("event=refused status=%d code=%s", error.status, error.code)
    return _to_response(refusal_answer(error))


def answer_http_error(error: HTTPException) -> Response:
    """Flask's own refusals (404, 405, a broken-off body) in the same JSON, with their headers kept."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    response = _error_response(
        status,
        status.name.lower(),
        f"{request.method} {request.path}: {status.phrase}.",
        "The routes are GET /ping, POST /invocations and GET /execution-parameters.",
    )
    response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    return response


def answer_unexpected_error(error: Exception) -> Response:
    """The last handler: our fault, so the traceback goes to the log and not to the client."""
    logger.error("event=failed path=%s", request.path, exc_info=error)
    return _error_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "The server failed on this request.",
        "The traceback is in the container's log.",
    )


def _error_response(status: int, code: str, message: str, hint: str) -> Response:
    return _to_response(error_answer(status, code, message, hint))


def _to_response(answer: Answer) -> Response:
    return Response(answer.body, status=answer.status, headers=answer.headers)


def _client_is_gone() -> bool:
    """The connection is closed: nobody waits for the answer."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None or not select([connection], [], [], 0)[0]:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _read_body() -> bytes:
    try:
        with gevent.Timeout(REQUEST_SECONDS) as timeout:
            body = request.get_data(cache=False)
            request.stream.read(1)  # werkzeug cuts a chunked body at the limit; one more read makes it raise
            return body
    except gevent.Timeout as error:
        if error is not timeout:
            raise
        raise RequestTimeout(
            f"The body was not complete after {REQUEST_SECONDS:.0f} s.",
            hint="Send smaller pictures, or send them faster.",
        ) from error
    except RequestEntityTooLarge as error:
        limit_mb = (request.max_content_length or 0) // MIB
        raise PayloadTooLarge(
            f"The body is larger than {limit_mb} MiB.",
            hint="Send a smaller picture, or raise KENNEL_MAX_PAYLOAD_MB.",
        ) from error
