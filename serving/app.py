"""HTTP: /ping, /invocations and /execution-parameters, and the one place where errors become answers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from serving.explainers import Explainers
from serving.invocations import Informed, Invocations
from serving.logs import MAX_ID_CHARACTERS, about
from serving.messages import (
    INVOCATIONS,
    JSON,
    REQUEST_ID,
    Answer,
    encode_json,
    error_answer,
    internal_error_answer,
)
from serving.openapi import build_openapi
from serving.processes import start_explainer
from serving.settings import BATCH_PRODUCT_MB, Settings
from serving.try_it import add_page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from serving.metrics import Metrics

PRECISION = "X-Kennel-Precision"  # of the answers, for whoever compares them with the trainer's
PHOTOGRAPH_MB = 6  # SageMaker's own default

logger = logging.getLogger(__name__)


class Backend(Informed, Protocol):
    """The pool, or a test's stand-in."""

    @property
    def capacity(self) -> int:
        """Requests that may be in hand at once."""

    def unhealthy_reason(self) -> str | None:
        """Why /ping should fail now, in one word; None while all is well."""


def create_app(backend: Backend, settings: Settings, metrics: Metrics) -> Flask:
    """The WSGI application before the processes that predict."""
    app = Flask(__name__, static_folder=None)
    explainers = Explainers(start_explainer, stuck_seconds=settings.stuck_seconds)
    invoke = Invocations(backend, explainers, settings)

    @app.route("/ping", methods=["GET", "POST"])  # SageMaker's guide names both
    def ping() -> Response:
        if reason := backend.unhealthy_reason():
            return Response(encode_json({"status": reason}), status=503, content_type=JSON)
        return Response(status=HTTPStatus.OK, headers={PRECISION: backend.info["precision"]})

    @app.post(INVOCATIONS)
    def invocations() -> WSGIApplication:
        return invoke  # Observed goes there directly

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
        return Response(encode_json(build_openapi(has_page=settings.page)), content_type=JSON)

    if settings.page:
        add_page(app, backend)
    app.wsgi_app = Observed(app.wsgi_app, invoke, metrics)  # type: ignore[method-assign]
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_unexpected_error)
    return app


class Observed:
    """WSGI around the app: every request has an id, which the log and the answer carry, and is counted."""

    def __init__(self, app: WSGIApplication, invoke: WSGIApplication, metrics: Metrics) -> None:
        self._app = app
        self._invoke = invoke
        self._metrics = metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        request_id = environ.get("HTTP_X_REQUEST_ID", "")[:MAX_ID_CHARACTERS] or uuid.uuid4().hex

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            self._metrics.count_request(environ["PATH_INFO"], int(status[:3]))
            return start_response(status, [*headers, (REQUEST_ID, request_id)], *error)

        self._metrics.in_flight += 1
        try:
            with about(request_id, environ.get("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID")):
                is_invocation = environ["PATH_INFO"] == INVOCATIONS and environ["REQUEST_METHOD"] == "POST"
                return (self._invoke if is_invocation else self._app)(environ, start)
        finally:
            self._metrics.in_flight -= 1


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


def answer_http_error(error: HTTPException) -> Response:
    """Flask's own refusals (404, 405) in the same JSON, with their headers kept."""
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
    return _to_response(internal_error_answer())


def _error_response(status: int, code: str, message: str, hint: str) -> Response:
    return _to_response(error_answer(status, code, message, hint))


def _to_response(answer: Answer) -> Response:
    return Response(answer.body, status=answer.status, headers=answer.headers)
