"""Routes, answers and refusals, around a predictor that needs no model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.test import TestResponse

from artifact.preprocess import Preprocess
from serving.app import build_execution_parameters, create_app
from serving.errors import Overloaded
from serving.handler import respond
from serving.messages import CUSTOM_ATTRIBUTES, Answer, Query
from serving.metrics import Metrics
from serving.settings import MIB, Settings, read_settings
from tests.bundles import encode_picture

SETTINGS = read_settings({"KENNEL_MAX_PAYLOAD_MB": "1", "KENNEL_WORKERS": "2"})
PNG = encode_picture("PNG")


class FakePredictor:
    """The same answer to every picture."""

    labels: tuple[str, ...] = ("beagle", "dingo", "samoyed")
    preprocess = Preprocess(resize=8, crop=8)
    precision = "fp32"
    concurrency = 1
    max_batch = 1

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.log(np.array([[0.125, 0.625, 0.25]], dtype=np.float32))


class BrokenPredictor(FakePredictor):
    """A bug in the engine."""

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("secret detail")


class InOneProcess:
    """A backend without processes: what is tested here is HTTP."""

    def __init__(self, predictor: FakePredictor, settings: Settings = SETTINGS) -> None:
        self.info: dict[str, Any] = {"precision": predictor.precision}
        self.reason: str | None = None
        self.capacity = 4
        self._predictor = predictor
        self._max_pixels = settings.max_pixels

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        return respond(query, self._predictor, max_pixels=self._max_pixels)

    def unhealthy_reason(self) -> str | None:
        return self.reason


class Busy(InOneProcess):
    """The queue is full."""

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool]) -> Answer:
        raise Overloaded(3)


def client_of(backend: InOneProcess, settings: Settings = SETTINGS) -> FlaskClient:
    return create_app(backend, settings, Metrics()).test_client()


@pytest.fixture
def client() -> FlaskClient:
    return client_of(InOneProcess(FakePredictor()))


def assert_error(response: TestResponse, status: int, code: str) -> dict[str, str]:
    assert response.status_code == status
    assert response.content_type == "application/json"
    error: dict[str, str] = response.get_json()["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["code"] == code
    return error


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ping_is_200_and_empty(method: str, client: FlaskClient) -> None:
    response = client.open("/ping", method=method)

    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["X-Kennel-Precision"] == "fp32"


@pytest.mark.parametrize("reason", ["loading", "draining", "restarting"])
def test_ping_of_an_unhealthy_server_is_503_with_the_reason(reason: str) -> None:
    backend = InOneProcess(FakePredictor())
    backend.reason = reason

    response = client_of(backend).get("/ping")

    assert (response.status_code, response.get_json()) == (503, {"status": reason})


def test_full_queue_is_503_with_retry_after() -> None:
    response = client_of(Busy(FakePredictor())).post("/invocations", data=PNG)

    assert_error(response, 503, "overloaded")
    assert response.headers["Retry-After"] == "3"


def test_invocation_answers_log_probabilities_in_label_order(client: FlaskClient) -> None:
    response = client.post("/invocations", data=PNG, content_type="image/png")

    assert response.content_type == "application/json"
    np.testing.assert_allclose(np.exp(response.get_json()), [[0.125, 0.625, 0.25]], rtol=1e-6)
    assert CUSTOM_ATTRIBUTES not in response.headers


@pytest.mark.parametrize(
    ("headers", "labels", "echoed"),
    [
        pytest.param({"Accept": "application/json; top=2"}, ["dingo", "samoyed"], None, id="accept"),
        pytest.param({CUSTOM_ATTRIBUTES: "trace=1;top=2"}, ["dingo", "samoyed"], "top=2", id="attribute"),
        pytest.param(
            {"Accept": "application/json; top=2", CUSTOM_ATTRIBUTES: "top=1"},
            ["dingo"],
            "top=1",
            id="attribute_wins",
        ),
        pytest.param({CUSTOM_ATTRIBUTES: "top=99"}, ["dingo", "samoyed", "beagle"], "top=99", id="clipped"),
    ],
)
def test_top_answers_the_likeliest_labels(
    headers: dict[str, str], labels: list[str], echoed: str | None, client: FlaskClient
) -> None:
    response = client.post("/invocations", data=PNG, headers=headers)

    predictions = response.get_json()["predictions"]
    assert [prediction["label"] for prediction in predictions] == labels
    assert predictions[0]["probability"] == pytest.approx(0.625)
    assert response.headers.get(CUSTOM_ATTRIBUTES) == echoed


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param(b"", {}, 400, "unreadable_image", id="empty"),
        pytest.param(b"text", {}, 400, "unreadable_image", id="not_a_picture"),
        pytest.param(PNG, {CUSTOM_ATTRIBUTES: "top=abc"}, 400, "bad_request", id="bad_top"),
        pytest.param(PNG, {"Accept": "application/json; top=0"}, 400, "bad_request", id="top_zero"),
        pytest.param(PNG, {"Accept": "image/png"}, 406, "not_acceptable", id="accept"),
        pytest.param(PNG, {"Content-Type": "text/csv"}, 415, "unsupported_content_type", id="content_type"),
        pytest.param(b"x" * (MIB + 1), {}, 413, "payload_too_large", id="too_many_bytes"),
    ],
)
def test_bad_request_is_refused_as_json(
    body: bytes, headers: dict[str, str], status: int, code: str, client: FlaskClient
) -> None:
    response = client.post("/invocations", data=body, headers=headers)

    assert_error(response, status, code)


def test_picture_with_too_many_pixels_is_413() -> None:
    settings = dataclasses.replace(SETTINGS, max_pixels=100)
    response = client_of(InOneProcess(FakePredictor(), settings)).post("/invocations", data=PNG)

    assert "KENNEL_MAX_PIXELS" in assert_error(response, 413, "image_too_large")["hint"]


def test_unknown_route_is_404_naming_the_routes(client: FlaskClient) -> None:
    assert "/invocations" in assert_error(client.get("/predict"), 404, "not_found")["hint"]


def test_wrong_method_is_405_with_the_allowed_ones(client: FlaskClient) -> None:
    response = client.get("/invocations")

    assert_error(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_unexpected_error_is_500_with_the_traceback_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        response = client_of(InOneProcess(BrokenPredictor())).post("/invocations", data=PNG)

    assert_error(response, 500, "internal_error")
    assert "secret detail" not in response.text
    assert "Traceback" not in response.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("environ", "capacity", "expected"),
    [
        pytest.param({}, 4, (4, "SINGLE_RECORD", 25), id="two_cores"),
        pytest.param({}, 16, (16, "SINGLE_RECORD", 6), id="eight_cores"),
        pytest.param({}, 128, (16, "SINGLE_RECORD", 6), id="product_stays_under_100"),
        pytest.param({"KENNEL_MAX_PAYLOAD_MB": "2"}, 4, (4, "SINGLE_RECORD", 2), id="own"),
        pytest.param(
            {
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": "20",
                "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
                "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
            },
            4,
            (3, "MULTI_RECORD", 20),
            id="as_the_job_says",
        ),
        pytest.param({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, 4, (4, "SINGLE_RECORD", 0), id="streamed"),
    ],
)
def test_execution_parameters_follow_the_instance_and_the_batch_job(
    environ: dict[str, str], capacity: int, expected: tuple[int, str, int]
) -> None:
    parameters = build_execution_parameters(read_settings(environ), capacity=capacity)

    assert tuple(parameters.values()) == expected


def test_execution_parameters_are_served(client: FlaskClient) -> None:
    assert client.get("/execution-parameters").get_json() == {
        "MaxConcurrentTransforms": 4,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 1,
    }
