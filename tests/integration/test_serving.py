"""container/serve for real: gunicorn, HTTP, signals, and artifacts it must refuse."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from artifact.bundle import Golden, read_bundle, read_golden, write_golden, write_manifest
from tests.bundles import draw_picture, encode_picture, make_tiny_bundle

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 20
ROTATED_90 = 6  # EXIF orientation: turn clockwise to see it upright
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    port: int
    process: subprocess.Popen[str]

    def invoke(self, body: bytes, **headers: str) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"{self.url}/invocations", data=body, headers=headers, timeout=TIMEOUT_SECONDS)


def start_server(model_dir: Path, **environ: str) -> tuple[subprocess.Popen[str], int]:
    """container/serve from another directory: python by PATH, packages by PYTHONPATH."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [REPOSITORY / "container/serve"],
        cwd="/",
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "KENNEL_MODEL_DIR": str(model_dir),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            **environ,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, port


def wait_for_ping(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/ping", timeout=TIMEOUT_SECONDS).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no /ping; the server said: {process.communicate()[1]}")


@contextmanager
def running_server(model_dir: Path, **environ: str) -> Iterator[Server]:
    process, port = start_server(model_dir, **environ)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_ping(url, process)
        yield Server(url, port, process)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("integration") / "model", num_classes=8)


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[Server]:
    with running_server(tiny_bundle, KENNEL_WORKERS="2", KENNEL_MAX_PAYLOAD_MB="1") as server:
        yield server


@contextmanager
def half_sent_request(server: Server, body: bytes, *, pause: float = 0.2) -> Iterator[socket.socket]:
    """A POST whose second half is still to come: a request in flight for as long as the test needs."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_SECONDS) as connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
        time.sleep(pause)  # so that the server has it in hand
        yield connection


def finish_request(connection: socket.socket, body: bytes) -> bytes:
    connection.sendall(body[len(body) // 2 :])
    return connection.recv(65536)


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


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_predicting(pid: int) -> bool:
    return b"serving.inference" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_server_whose_process_is_killed_while_loading_exits_non_zero(tiny_bundle: Path) -> None:
    process, _ = start_server(tiny_bundle, KENNEL_WORKERS="1")
    while not children_of(process.pid):
        time.sleep(0.005)

    os.kill(children_of(process.pid)[0], signal.SIGKILL)  # as the kernel does when memory runs out
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 1
    assert "killed before its model was loaded" in stderr.splitlines()[-1]


def test_ping_is_503_until_the_model_is_loaded(tiny_bundle: Path) -> None:
    process, port = start_server(tiny_bundle, KENNEL_WORKERS="1")
    url = f"http://127.0.0.1:{port}"
    try:
        while not children_of(process.pid):
            time.sleep(0.005)
        predicting = children_of(process.pid)[0]
        os.kill(predicting, signal.SIGSTOP)
        while len(children_of(process.pid)) < 2:  # until the HTTP process is there
            time.sleep(0.005)

        loading = requests.get(f"{url}/ping", timeout=TIMEOUT_SECONDS)

        assert (loading.status_code, loading.json()) == (503, {"status": "loading"})
        os.kill(predicting, signal.SIGCONT)
        wait_for_ping(url, process)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_SECONDS)


@contextmanager
def steady_load(server: Server, *, clients: int) -> Iterator[list[int]]:
    """Requests as fast as `clients` connections go; their statuses."""
    statuses: list[int] = []
    stop = threading.Event()
    body = encode_picture("JPEG")

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                response = session.post(f"{server.url}/invocations", data=body, timeout=TIMEOUT_SECONDS)
                statuses.append(response.status_code)

    with ThreadPoolExecutor(clients) as threads:
        asking = [threads.submit(ask) for _ in range(clients)]
        try:
            yield statuses
        finally:
            stop.set()
        for one in asking:
            one.result()


def test_killed_process_is_replaced_and_no_request_is_lost(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle, KENNEL_WORKERS="2") as server:
        with steady_load(server, clients=4) as statuses:
            for _ in range(3):
                time.sleep(0.5)
                victim = next(pid for pid in descendants_of(server.process.pid) if is_predicting(pid))
                os.kill(victim, signal.SIGKILL)
            time.sleep(1.5)
        pids = [pid for pid in descendants_of(server.process.pid) if is_predicting(pid)]

    assert set(statuses) == {200}
    assert len(statuses) > 50
    assert len(pids) == 2


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [one for child in children for one in descendants_of(child)]


def test_stuck_process_is_told_by_its_stacks_and_replaced(tiny_bundle: Path) -> None:
    process, port = start_server(tiny_bundle, KENNEL_WORKERS="1", KENNEL_STUCK_SECONDS="1")
    url = f"http://127.0.0.1:{port}"
    wait_for_ping(url, process)
    victim = next(pid for pid in descendants_of(process.pid) if is_predicting(pid))
    os.kill(victim, signal.SIGSTOP)

    response = requests.post(f"{url}/invocations", data=encode_picture("PNG"), timeout=TIMEOUT_SECONDS)

    assert response.status_code == 500
    wait_for_ping(url, process)
    again = requests.post(f"{url}/invocations", data=encode_picture("PNG"), timeout=TIMEOUT_SECONDS)
    assert again.status_code == 200
    process.terminate()
    process.communicate(timeout=TIMEOUT_SECONDS)


def test_killed_http_process_is_replaced_with_all_its_children(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle, KENNEL_WORKERS="2") as server:
        before = descendants_of(server.process.pid)
        front = next(pid for pid in before if not is_predicting(pid))

        os.kill(front, signal.SIGKILL)
        time.sleep(0.1)
        wait_for_ping(server.url, server.process)

        assert server.invoke(encode_picture("PNG")).status_code == 200
        assert not set(before) & set(descendants_of(server.process.pid))


def test_slow_clients_hold_up_nobody(tiny_bundle: Path) -> None:
    body = encode_picture("PNG")
    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server, ExitStack() as stack:
        connections = [stack.enter_context(half_sent_request(server, body, pause=0.0)) for _ in range(100)]
        started = time.monotonic()

        assert server.invoke(body).status_code == 200
        assert time.monotonic() - started < 1.0
        assert finish_request(connections[50], body).startswith(b"HTTP/1.1 200 OK")


def test_request_of_a_client_that_left_is_not_predicted(tiny_bundle: Path) -> None:
    body = encode_picture("PNG")
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with running_server(tiny_bundle, KENNEL_WORKERS="1", KENNEL_QUEUE_LIMIT="1000") as server:
        victim = next(pid for pid in descendants_of(server.process.pid) if is_predicting(pid))
        os.kill(victim, signal.SIGSTOP)
        for _ in range(100):  # few enough for the pipe of the log
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + body)
        used = cpu_seconds(victim)
        os.kill(victim, signal.SIGCONT)
        assert server.invoke(body).status_code == 200

        assert cpu_seconds(victim) - used < 0.05  # of 100 predictions at most the few in hand were made


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_serving_process_never_imports_torch() -> None:
    modules = "serving.app, serving.handler, serving.engine_openvino, serving.wsgi, serving.gunicorn_conf"
    program = f"import {modules}, sys; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_long_request_of_many_pictures_is_not_taken_for_stuck(tiny_bundle: Path) -> None:
    picture = io.BytesIO()
    draw_picture(width=3000, height=2000).save(picture, "PNG", compress_level=1)  # a tenth of a second each
    line = json.dumps(base64.b64encode(picture.getvalue()).decode()).encode()
    environ = {"KENNEL_STUCK_SECONDS": "2", "KENNEL_MAX_PAYLOAD_MB": "100"}
    with running_server(tiny_bundle, KENNEL_WORKERS="1", **environ) as server:
        started = time.monotonic()
        response = server.invoke(b"\n".join([line] * 40), Content_Type="application/jsonlines")

        assert time.monotonic() - started > 3.0
    assert response.status_code == 200
    assert len(response.text.splitlines()) == 40
