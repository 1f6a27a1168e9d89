"""HTTP: /ping, /invocations and /execution-parameters, and the one place where errors become answers."""

from __future__ import annotations

import logging
from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from serving.errors import PayloadTooLarge, RequestError
from serving.handler import Predictor, respond
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

logger = logging.getLogger(__name__)


def create_app(predictor: Predictor, settings: Settings) -> Flask:
    """The WSGI application around a loaded model; it answers /ping with 200 from its first request on."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_payload_mb * MIB

    @app.route("/ping", methods=["GET", "POST"])  # SageMaker's guide names both
    def ping() -> Response:
        return Response(status=HTTPStatus.OK, headers={PRECISION: predictor.precision})

    @app.post("/invocations")
    def invocations() -> Response:
        query = Query(
            _read_body(),
            request.content_type,
            request.headers.get("Accept"),
            request.headers.get(CUSTOM_ATTRIBUTES),
        )
        return _to_response(respond(query, predictor, max_pixels=settings.max_pixels))

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
    """The client's fault, in the client's terms."""
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


def _read_body() -> bytes:
    try:
        body = request.get_data(cache=False)
        request.stream.read(1)  # werkzeug cuts a chunked body at the limit; one more read makes it raise
        return body
    except RequestEntityTooLarge as error:
        limit_mb = (request.max_content_length or 0) // MIB
        raise PayloadTooLarge(
            f"The body is larger than {limit_mb} MiB.",
            hint="Send a smaller picture, or raise KENNEL_MAX_PAYLOAD_MB.",
        ) from error
