"""The Lambda function's own file against a real server, through a stub of SageMaker's runtime API."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from aws.function_zip import HANDLER, read_pin, write_zip
from local.endpoint import Endpoint, start_endpoint
from tests.bundles import LABELS, encode_picture, make_tiny_bundle
from tests.integration.aws.moto_service import Service
from tests.unit.aws.sites import REGION, REPOSITORY

LIMIT_BYTES = 6 * 1024 * 1024
PICTURE = encode_picture("JPEG")
SECRET = "secret-of-the-test"


class Runtime:
    """What InvokeEndpoint does: size limit, the container's answer, its errors as ModelError."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.sizes: list[int] = []
        self.failures: list[tuple[int, str, int]] = []  # answered first: status, code, original status
        self.url = ""

    def invoke(self, body: bytes, headers: Any) -> tuple[int, dict[str, str], bytes]:
        self.sizes.append(len(body))
        if self.failures:
            status, code, original = self.failures.pop(0)
            content = {"Message": "no", "OriginalStatusCode": original, "OriginalMessage": "no"}
            return status, {"x-amzn-errortype": code}, json.dumps(content).encode()
        if len(body) > LIMIT_BYTES:
            content = {"Message": f"Request size {len(body)} exceeds the limit"}
            return 413, {"x-amzn-errortype": "ValidationError"}, json.dumps(content).encode()
        connection = http.client.HTTPConnection(self._endpoint.host, self._endpoint.port, timeout=60)
        sent = {name: headers[name] for name in ("Content-Type", "Accept") if headers[name]}
        connection.request("POST", "/invocations", body, sent)
        answer = connection.getresponse()
        content_bytes = answer.read()
        connection.close()
        if answer.status == 200:
            return 200, {"Content-Type": answer.getheader("Content-Type", "")}, content_bytes
        error = {
            "OriginalStatusCode": answer.status,
            "OriginalMessage": content_bytes.decode(),
            "Message": "no",
        }
        return 424, {"x-amzn-errortype": "ModelError"}, json.dumps(error).encode()


@contextmanager
def serve_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """The stub on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, content = runtime.invoke(body, self.headers)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    runtime.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield runtime
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "model")
    with start_endpoint(bundle, environment={"KENNEL_WORKERS": "1"}) as endpoint:
        with serve_runtime(Runtime(endpoint)) as served:
            yield served


@pytest.fixture
def handler(runtime: Runtime, service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The function as Lambda loads it, with its environment."""
    runtime.sizes.clear()
    runtime.failures.clear()
    settings = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url,
        "ENDPOINT_NAME": "dogs",
        "ALLOW_S3": json.dumps(["s3://photos/in/"]),
        "ALLOW_URLS": json.dumps([f"{runtime.url}/pictures/"]),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    specification = importlib.util.spec_from_file_location("handler", HANDLER)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.FIRST_PAUSE_SECONDS = 0.001  # type: ignore[attr-defined]
    yield module
    for client in ("sagemaker-runtime", "s3"):
        module._client(client).close()


@pytest.fixture
def photos(service: Service) -> Any:
    """A bucket with a picture inside the allowed folder and one outside."""
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("in/a b.jpg", "out/a.jpg"):
        s3.put_object(Bucket="photos", Key=key, Body=PICTURE)
    return s3


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def record_of(key: str) -> dict[str, Any]:
    return {"s3": {"bucket": {"name": "photos"}, "object": {"key": key}}}


def direct(runtime: Runtime) -> Any:
    return {"image": base64_of(PICTURE)}


def plain_base64(runtime: Runtime) -> Any:
    return base64_of(PICTURE)


def by_url(runtime: Runtime) -> Any:
    return {"url": f"{runtime.url}/pictures/a.jpg"}


def by_s3(runtime: Runtime) -> Any:
    return {"s3": "s3://photos/in/a b.jpg"}


@pytest.mark.parametrize("event", [direct, plain_base64, by_url, by_s3])
def test_event_is_answered_with_labels(event: Any, handler: Any, runtime: Runtime, photos: Any) -> None:
    answer = handler.handle(event(runtime), None)

    assert {prediction["label"] for prediction in answer["predictions"]} == set(LABELS[:3])
    assert sum(prediction["probability"] for prediction in answer["predictions"]) == pytest.approx(
        1, abs=1e-4
    )


@pytest.mark.parametrize("form", ["binary", "json"])
def test_api_gateway_gets_status_and_body(form: str, handler: Any, runtime: Runtime) -> None:
    event = {"body": base64_of(PICTURE), "isBase64Encoded": True, "headers": {}}
    if form == "json":
        event = {"body": json.dumps(direct(runtime)), "isBase64Encoded": False, "headers": {}}

    answer = handler.handle(event, None)

    assert answer["statusCode"] == 200
    assert len(json.loads(answer["body"])["predictions"]) == 3


def test_s3_event_is_answered_record_by_record(handler: Any, photos: Any) -> None:
    event = {"Records": [record_of("in/a+b.jpg"), record_of("in/absent.jpg")]}

    first, second = handler.handle(event, None)["answers"]

    assert first["s3"] == "s3://photos/in/a b.jpg" and len(first["predictions"]) == 3
    assert second["error"]["code"] == "unreadable"


def test_12_megapixel_photo_over_the_limit_is_shrunk_and_answered(handler: Any, runtime: Runtime) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(3000, 4000, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    assert buffer.tell() > LIMIT_BYTES

    answer = handler.answer_event({"image": base64_of(buffer.getvalue())}, lambda: 60.0)

    assert len(answer["predictions"]) == 3
    assert len(runtime.sizes) == 1 and runtime.sizes[0] <= LIMIT_BYTES


def test_shrinking_keeps_the_picture_upright(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (800, 400), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    monkeypatch.setattr(handler, "MAX_PAYLOAD_BYTES", buffer.tell() - 1)

    smaller = Image.open(io.BytesIO(handler.fit(buffer.getvalue())))

    assert smaller.height > smaller.width


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        pytest.param({"image": "no base64!"}, 400, "not_base64", id="base64"),
        pytest.param({"picture": "x"}, 400, "unknown_event", id="keys"),
        pytest.param([1], 400, "unknown_event", id="list"),
        pytest.param({"image": ""}, 400, "empty", id="empty"),
        pytest.param({"image": base64_of(b"no picture")}, 400, "", id="no-picture"),
        pytest.param({"url": "https://elsewhere.example/a.jpg"}, 403, "not_allowed", id="url"),
        pytest.param({"url": "file:///etc/passwd"}, 403, "not_allowed", id="file"),
        pytest.param({"url": "http://169.254.169.254/latest/meta-data"}, 403, "not_allowed", id="metadata"),
        pytest.param({"s3": "s3://photos/out/a.jpg"}, 403, "not_allowed", id="s3"),
        pytest.param({"s3": "s3://photos/in/../out/a.jpg"}, 403, "not_allowed", id="dots"),
        pytest.param({"s3": "s3://photos/in/none.jpg"}, 422, "unreadable", id="absent"),
        pytest.param({"body": "\u00ff\u00d8", "isBase64Encoded": False}, 400, "not_binary", id="text-body"),
    ],
)
def test_fault_of_the_client_is_named(event: Any, status: int, code: str, handler: Any, photos: Any) -> None:
    with pytest.raises(handler.Fault) as caught:
        handler.answer_event(event, lambda: 60.0)

    assert caught.value.status == status
    assert not code or caught.value.body["error"]["code"] == code


@pytest.mark.parametrize(
    "failure",
    [(400, "ThrottlingException", 0), (429, "ModelNotReadyException", 0), (424, "ModelError", 503)],
)
def test_what_may_pass_is_tried_again(failure: tuple[int, str, int], handler: Any, runtime: Runtime) -> None:
    runtime.failures = [failure, failure]

    answer = handler.handle(direct(runtime), None)

    assert len(answer["predictions"]) == 3
    assert len(runtime.sizes) == 3


def test_what_does_not_pass_is_given_up_with_a_sentence(handler: Any, runtime: Runtime) -> None:
    runtime.failures = [(424, "ModelError", 500)]
    faulty = handler.handle({"body": json.dumps(direct(runtime)), "isBase64Encoded": False}, None)
    assert (faulty["statusCode"], len(runtime.sizes)) == (502, 1)

    runtime.failures = [(400, "ThrottlingException", 0)] * 9
    busy = handler.handle({"body": json.dumps(direct(runtime)), "isBase64Encoded": False}, None)
    assert busy["statusCode"] == 503 and "Try again" in busy["body"]


def test_retries_end_in_time(handler: Any, runtime: Runtime) -> None:
    runtime.failures = [(400, "ThrottlingException", 0)] * 9

    with pytest.raises(handler.Fault):
        handler.ask_endpoint(PICTURE, lambda: 1.0)

    assert len(runtime.sizes) == 1


def test_log_holds_neither_picture_nor_credentials(
    handler: Any, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="kennel"):
        handler.handle(direct(runtime), None)
        handler.handle({"image": "no base64! " + SECRET}, None)

    assert "status=200" in caplog.text and "code=not_base64" in caplog.text
    assert base64_of(PICTURE)[:40] not in caplog.text and SECRET not in caplog.text


def test_archive_is_reproducible_and_runs_on_its_own(tmp_path: Path) -> None:
    """The handler beside installed packages, in a bare interpreter: nothing of the repository is imported."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "beside.py").write_text("VALUE = 1\n")
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name, [packages])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'a.zip')!r}); import handler, beside; "
        "print(handler.handle({'x': 1}, None)['error']['code'])"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "unknown_event"


def test_pin_is_the_one_of_the_serving_image() -> None:
    assert read_pin().startswith("pillow==")
    assert read_pin().splitlines()[0].split()[0] in (REPOSITORY / "requirements/serving-cpu.txt").read_text()
    assert not read_pin().rstrip().endswith("\\")


def test_test_event_of_the_documentation_is_answered(handler: Any) -> None:
    event = json.loads((HANDLER.parent / "test_event.json").read_text())

    assert len(handler.handle(event, None)["predictions"]) == 3
