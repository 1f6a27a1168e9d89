"""A server whose processes die, hang or load, and clients that are slow or leave."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.bundles import draw_picture, encode_picture, make_tiny_bundle
from tests.servers import (
    TIMEOUT_SECONDS,
    Server,
    children_of,
    cpu_seconds,
    descendants_of,
    finish_request,
    half_sent_request,
    is_predicting,
    running_server,
    start_server,
    wait_for_ping,
)
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("faults") / "model", num_classes=8)


def test_server_whose_process_is_killed_while_loading_exits_non_zero(tiny_bundle: Path) -> None:
    process, _ = start_server(tiny_bundle, KENNEL_WORKERS="1")
    predicting, *_ = wait_until(lambda: children_of(process.pid))

    os.kill(predicting, signal.SIGKILL)  # as the kernel does when memory runs out
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 1
    assert "killed before its model was loaded" in stderr.splitlines()[-1]


def test_ping_is_503_until_the_model_is_loaded(tiny_bundle: Path) -> None:
    process, port = start_server(tiny_bundle, KENNEL_WORKERS="1")
    url = f"http://127.0.0.1:{port}"
    try:
        # Stopped before its exec it would hold its parent too, which waits for that.
        (predicting,) = wait_until(lambda: [one for one in children_of(process.pid) if is_predicting(one)])
        os.kill(predicting, signal.SIGSTOP)
        wait_until(lambda: len(children_of(process.pid)) == 2)  # the HTTP process is there

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


def wait_until_it_works(pid: int, *, seconds: float = 0.3) -> None:
    before = cpu_seconds(pid)
    wait_until(lambda: cpu_seconds(pid) > before + seconds)


def test_second_death_is_charged_to_the_request_that_was_in_hand_alone(tiny_bundle: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (5000, 5000)).save(buffer, "PNG")  # small, and slow to decode
    pictures = [("file", (f"{index}.png", buffer.getvalue())) for index in range(8)]

    with running_server(tiny_bundle, KENNEL_WORKERS="1") as server, ThreadPoolExecutor(3) as clients:

        def ask() -> int:
            url = f"{server.url}/invocations"
            return requests.post(url, files=pictures, timeout=2 * TIMEOUT_SECONDS).status_code

        def find_predicting() -> list[int]:
            return [pid for pid in descendants_of(server.process.pid) if is_predicting(pid)]

        asked = [clients.submit(ask) for _ in range(3)]
        (first,) = find_predicting()
        wait_until_it_works(first, seconds=1.0)  # by then it has all three
        os.kill(first, signal.SIGKILL)
        (second,) = wait_until(lambda: [pid for pid in find_predicting() if pid != first])
        wait_until(lambda: requests.get(f"{server.url}/ping", timeout=TIMEOUT_SECONDS).status_code == 200)
        wait_until_it_works(second)
        os.kill(second, signal.SIGKILL)
        statuses = sorted(one.result() for one in asked)

    assert statuses == [200, 200, 500]


def test_requests_in_hand_of_a_stuck_process_are_asked_again(tiny_bundle: Path) -> None:
    with (
        running_server(tiny_bundle, KENNEL_WORKERS="1", KENNEL_STUCK_SECONDS="1") as server,
        ThreadPoolExecutor(3) as clients,
    ):
        victim = next(pid for pid in descendants_of(server.process.pid) if is_predicting(pid))
        os.kill(victim, signal.SIGSTOP)
        asked = [clients.submit(server.invoke, encode_picture("PNG")) for _ in range(3)]

        assert [one.result().status_code for one in asked] == [200] * 3


@pytest.mark.parametrize("is_enough", [True, False])
def test_processes_keep_to_cores_of_their_own_where_there_is_one_for_each_core(
    tiny_bundle: Path, is_enough: bool
) -> None:
    cores = os.sched_getaffinity(0)
    num_processes = len(cores) if is_enough else len(cores) + 1

    with running_server(tiny_bundle, KENNEL_WORKERS=str(num_processes)) as server:
        predicting = [pid for pid in descendants_of(server.process.pid) if is_predicting(pid)]
        kept = sorted(sorted(os.sched_getaffinity(pid)) for pid in predicting)

    assert kept == ([[core] for core in sorted(cores)] if is_enough else [sorted(cores)] * num_processes)


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


def test_request_goes_past_a_process_that_is_late(tiny_bundle: Path) -> None:
    body = encode_picture("PNG")

    def ask(server: Server) -> int:
        return int(server.invoke(body).headers["X-Kennel-Worker"].partition("-")[2])

    with running_server(tiny_bundle, KENNEL_WORKERS="2") as server, ThreadPoolExecutor(4) as clients:
        first = ask(server)  # of idle ones it is always this one's turn
        with stopped(first):
            late = clients.submit(ask, server)
            time.sleep(0.5)  # and a tenth at most was to be expected
            others = [ask(server) for _ in range(3)]

            assert first not in others
        assert late.result(TIMEOUT_SECONDS) == first


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is at work on something for long."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def encode_lines(count: int) -> bytes:
    """JSON lines of large pictures: 70 ms each."""
    picture = io.BytesIO()
    draw_picture(width=3000, height=2000).save(picture, "PNG", compress_level=1)
    return b"\n".join([json.dumps(base64.b64encode(picture.getvalue()).decode()).encode()] * count)


def test_long_request_of_many_pictures_is_not_taken_for_stuck(tiny_bundle: Path) -> None:
    environ = {"KENNEL_STUCK_SECONDS": "2", "KENNEL_MAX_PAYLOAD_MB": "100"}
    with running_server(tiny_bundle, KENNEL_WORKERS="1", **environ) as server:
        started = time.monotonic()
        response = server.invoke(encode_lines(60), Content_Type="application/jsonlines")

        assert time.monotonic() - started > 3.0
    assert response.status_code == 200
    assert len(response.text.splitlines()) == 60


def test_long_request_holds_up_nobody(tiny_bundle: Path) -> None:
    with (
        running_server(tiny_bundle, KENNEL_WORKERS="1", KENNEL_MAX_PAYLOAD_MB="100") as server,
        ThreadPoolExecutor(1) as client,
    ):
        (predicting,) = (pid for pid in descendants_of(server.process.pid) if is_predicting(pid))
        long = client.submit(server.invoke, encode_lines(40), Content_Type="application/jsonlines")
        wait_until_it_works(predicting)

        statuses = [server.invoke(encode_picture("PNG")).status_code for _ in range(3)]

        assert statuses == [200] * 3
        assert not long.done()
        assert long.result().status_code == 200
