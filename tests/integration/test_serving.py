"""container/serve for real: gunicorn, HTTP, signals, and artifacts it must refuse."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from artifact.bundle import Golden, read_bundle, read_golden, write_golden, write_manifest
from tests.bundles import draw_picture, encode_picture, make_tiny_bundle
from tests.servers import (
    REPOSITORY,
    TIMEOUT_SECONDS,
    Server,
    descendants_of,
    finish_request,
    half_sent_request,
    is_predicting,
    running_server,
    start_server,
)
from tests.waiting import wait_until

ROTATED_90 = 6  # EXIF orientation: turn clockwise to see it upright
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("integration") / "model", num_classes=8)


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[Server]:
    with running_server(tiny_bundle, KENNEL_WORKERS="2", KENNEL_MAX_PAYLOAD_MB="1") as server:
        yield server


def encode_rotated(*, exif_orientation: int | None) -> bytes:
    """The drawn picture lying on its side, with or without the note that says so."""
    exif = Image.Exif()
    if exif_orientation is not None:
        exif[0x0112] = exif_orientation
    buffer = io.BytesIO()
    draw_picture().transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ping_of_a_loaded_server_is_200_and_empty(method: str, server: Server) -> None:
    response = requests.request(method, f"{server.url}/ping", timeout=TIMEOUT_SECONDS)

    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("image_format", "content_type"),
    [
        pytest.param("JPEG", "image/jpeg", id="jpeg"),
        pytest.param("PNG", "image/png", id="png"),
        pytest.param("JPEG", "application/x-image", id="x_image"),
        pytest.param("WEBP", "image/jpeg", id="bytes_decide_not_the_header"),
    ],
)
def test_picture_is_answered_with_log_probabilities_in_label_order(
    image_format: str, content_type: str, server: Server
) -> None:
    response = server.invoke(encode_picture(image_format), Content_Type=content_type)

    pred = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert np.exp(pred).sum() == pytest.approx(1.0)
    assert torch.tensor(pred).argmax().item() == np.argmax(pred, 1)[0]


def test_served_answer_equals_the_golden_one(tiny_bundle: Path, server: Server) -> None:
    golden = read_golden(read_bundle(tiny_bundle))

    pred = server.invoke(golden.body, Content_Type="image/png").json()

    np.testing.assert_allclose(pred, [golden.log_probabilities["fp32"]], atol=1e-4)


def test_exif_rotated_picture_gets_the_same_answer_as_the_upright_one(server: Server) -> None:
    upright = server.invoke(encode_picture("PNG")).json()

    assert server.invoke(encode_rotated(exif_orientation=ROTATED_90)).json() == upright
    assert server.invoke(encode_rotated(exif_orientation=None)).json() != upright


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Accept": "application/json; top=5"}, id="accept"),
        pytest.param({CUSTOM_ATTRIBUTES: "top=5"}, id="custom_attribute"),
    ],
)
def test_top_five_are_the_best_labels_of_the_whole_answer(
    headers: dict[str, str], tiny_bundle: Path, server: Server
) -> None:
    labels = read_bundle(tiny_bundle).manifest.labels
    whole = server.invoke(encode_picture("PNG")).json()[0]

    response = server.invoke(encode_picture("PNG"), **headers)

    predictions = response.json()["predictions"]
    assert [one["label"] for one in predictions] == [labels[i] for i in np.argsort(whole)[::-1][:5]]
    assert predictions[0]["probability"] == pytest.approx(np.exp(max(whole)))
    assert response.headers.get(CUSTOM_ATTRIBUTES) == headers.get(CUSTOM_ATTRIBUTES)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        pytest.param("POST", "/invocations", b"", {}, 400, id="empty"),
        pytest.param("POST", "/invocations", encode_picture("JPEG")[:-200], {}, 400, id="truncated"),
        pytest.param("GET", "/predict", None, {}, 404, id="unknown_route"),
        pytest.param("GET", "/invocations", None, {}, 405, id="wrong_method"),
        pytest.param(
            "POST", "/invocations", encode_picture("PNG"), {"Accept": "image/png"}, 406, id="accept"
        ),
        pytest.param("POST", "/invocations", b"x" * 30_000_000, {}, 413, id="too_large"),
        pytest.param("POST", "/invocations", iter([b"x" * 500_000] * 4), {}, 413, id="too_large_in_chunks"),
        pytest.param("POST", "/invocations", b"{}", {"Content-Type": "text/csv"}, 415, id="content_type"),
    ],
)
def test_bad_request_is_refused_as_json(
    method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, server: Server
) -> None:
    response = requests.request(
        method, server.url + path, data=body, headers=headers, timeout=TIMEOUT_SECONDS
    )

    assert response.status_code == status
    assert response.json()["error"].keys() == {"code", "message", "hint"}


def test_picture_sent_in_chunks_is_answered(server: Server) -> None:
    body = encode_picture("PNG")

    response = requests.post(
        f"{server.url}/invocations", data=iter([body[:100], body[100:]]), timeout=TIMEOUT_SECONDS
    )

    assert response.json() == server.invoke(body).json()


def test_execution_parameters_are_valid_for_batch_transform(server: Server) -> None:
    parameters = requests.get(f"{server.url}/execution-parameters", timeout=TIMEOUT_SECONDS).json()

    assert parameters == {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}


def test_ping_answers_while_requests_are_in_flight_and_sigterm_finishes_them(tiny_bundle: Path) -> None:
    body = encode_picture("PNG")
    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server, ExitStack() as stack:
        connections = [stack.enter_context(half_sent_request(server, body)) for _ in range(3)]
        started = time.monotonic()
        assert requests.get(f"{server.url}/ping", timeout=TIMEOUT_SECONDS).status_code == 200
        assert time.monotonic() - started < 1.0

        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        answers = [finish_request(connection, body) for connection in connections]

        assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
        assert server.process.wait(timeout=TIMEOUT_SECONDS) == 0


def remove_manifest(model_dir: Path) -> None:
    (model_dir / "manifest.json").unlink()


def remove_weights(model_dir: Path) -> None:
    (model_dir / "weights.safetensors").unlink()


def corrupt_graph(model_dir: Path) -> None:
    (model_dir / "openvino/fp32.bin").write_bytes(b"")


def raise_format_version(model_dir: Path) -> None:
    manifest = json.loads((model_dir / "manifest.json").read_text())
    (model_dir / "manifest.json").write_text(json.dumps(manifest | {"format_version": "2.0"}))


def change_golden_answer(model_dir: Path) -> None:
    bundle = read_bundle(model_dir)
    golden = read_golden(bundle)
    answer = [value + 0.1 for value in golden.log_probabilities["fp32"]]
    write_golden(model_dir, Golden(body=golden.body, log_probabilities={"fp32": answer}))
    write_manifest(model_dir, bundle.manifest)


@pytest.mark.parametrize(
    ("break_bundle", "environ", "sentence"),
    [
        pytest.param(remove_manifest, {}, "manifest.json is missing", id="no_artifact"),
        pytest.param(remove_weights, {}, "weights.safetensors is missing", id="weights"),
        pytest.param(corrupt_graph, {}, "fp32.bin does not have the checksum", id="graph"),
        pytest.param(raise_format_version, {}, "Use a newer serving image", id="newer_format"),
        pytest.param(change_golden_answer, {}, "answers the golden picture 0.1 away", id="golden"),
        pytest.param(None, {"KENNEL_WORKERS": "0"}, "KENNEL_WORKERS='0' is not allowed", id="setting"),
    ],
)
def test_server_that_cannot_load_exits_non_zero_with_one_sentence(
    break_bundle: Callable[[Path], None] | None,
    environ: dict[str, str],
    sentence: str,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    model_dir = shutil.copytree(tiny_bundle, tmp_path / "model")
    if break_bundle is not None:
        break_bundle(model_dir)

    process, _ = start_server(model_dir, **({"KENNEL_WORKERS": "2"} | environ))
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 1
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("Kennel cannot start: ")
    assert sentence in stderr


def test_serving_process_never_imports_torch() -> None:
    modules = "serving.app, serving.handler, serving.engine_openvino, serving.wsgi, serving.gunicorn_conf"
    program = f"import {modules}, sys; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_requests_that_wait_together_are_predicted_together_and_answered_as_alone(tiny_bundle: Path) -> None:
    bodies = [encode_picture("PNG", seed=seed) for seed in range(4)]

    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server, ThreadPoolExecutor(5) as clients:
        alone = [server.invoke(body, Accept="application/json").json() for body in bodies]
        predicting = next(pid for pid in descendants_of(server.process.pid) if is_predicting(pid))
        os.kill(predicting, signal.SIGSTOP)
        asked = [clients.submit(server.invoke, body) for body in [*bodies[:2], b"broken", *bodies[2:]]]
        wait_until(lambda: "kennel_in_flight 6.0" in read_metrics(server))  # this one too
        os.kill(predicting, signal.SIGCONT)
        together = [one.result() for one in asked]
        wait_until(lambda: "kennel_batch_size_sum 8.0" in read_metrics(server))

        assert "kennel_batch_size_count 8.0" not in read_metrics(server)
    assert [answer.status_code for answer in together] == [200, 200, 400, 200, 200]
    answered = [answer.json() for answer in together if answer.status_code == 200]
    np.testing.assert_allclose(answered, alone, atol=1e-6)


def read_metrics(server: Server) -> str:
    return requests.get(f"{server.url}/metrics", timeout=TIMEOUT_SECONDS).text
