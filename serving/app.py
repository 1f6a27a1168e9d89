"""HTTP: /ping, /invocations and /execution-parameters, and the one place where errors become answers."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import gevent
from flask import Flask, Response, request
from gevent.select import select
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from serving.errors import PayloadTooLarge, RequestError, RequestTimeout
from serving.messages import (
    CUSTOM_ATTRIBUTES,
    JSON,
    Answer,
    Query,
    encode_json,
    error_answer,
    refusal_answer,
)
from serving.settings import BATCH_PRODUCT_MB, MIB, Settings

PRECISION = "X-Kennel-Precision"  # of the answers, for whoever compares them with the trainer's
REQUEST_SECONDS = 60.0  # SageMaker gives one invocation this long

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What answers: serving.pool.Pool, or a test's stand-in without processes."""

    info: dict[str, Any]

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        """The answer, begun within `seconds` if the client still waits then. Raises RequestError."""

    def unhealthy_reason(self) -> str | None:
        """Why /ping should fail now, in one word; None while all is well."""


def create_app(backend: Backend, settings: Settings) -> Flask:
    """The WSGI application before the processes that predict."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_payload_mb * MIB

    @app.route("/ping", methods=["GET", "POST"])  # SageMaker's guide names both
    def ping() -> Response:
        if reason := backend.unhealthy_reason():
            return Response(encode_json({"status": reason}), status=503, content_type=JSON)
        return Response(status=HTTPStatus.OK, headers={PRECISION: backend.info["precision"]})

    @app.post("/invocations")
    def invocations() -> Response:
        query = Query(
            _read_body(),
            request.content_type,
            request.headers.get("Accept"),
            request.headers.get(CUSTOM_ATTRIBUTES),
        )
        answer = backend.ask(query, seconds=REQUEST_SECONDS, is_gone=_client_is_gone)
        return _to_response(answer)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return Response(encode_json(build_execution_parameters(settings)), content_type=JSON)

    app.register_error_handler(RequestError, answer_request_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_unexpected_error)
    return app


def build_execution_parameters(settings: Settings) -> dict[str, int | str]:
    """What Batch Transform asks for before the first record."""
    payload_mb = min(settings.batch_payload_mb, settings.max_payload_mb)
    concurrency = settings.batch_concurrency or settings.workers
    return {
        "MaxConcurrentTransforms": max(1, min(concurrency, BATCH_PRODUCT_MB // max(1, payload_mb))),
        "BatchStrategy": settings.batch_strategy,
        "MaxPayloadInMB": payload_mb,
    }


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
