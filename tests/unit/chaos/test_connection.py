"""Every way a connection can end, against a real socket that ends it so."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from chaos.connection import Connection, build_request
from chaos.ledger import Entry, Fate, Ledger
from chaos.load import Pace, Target, closed_loop, open_loop, pings
from local.platform import free_port

Script = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Kennel-Worker: 7\r\n\r\n[]"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
REQUEST = build_request("/invocations", b"picture")


def read_request(connection: socket.socket) -> None:
    received = b""
    while not received.endswith(b"picture"):
        chunk = connection.recv(65536)
        if not chunk:
            raise EOFError
        received += chunk


def answer(response: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(response)

    return script


def answer_for_ever(connection: socket.socket) -> None:
    try:
        while True:
            answer(OK)(connection)
    except (EOFError, ConnectionError):
        pass


def read_and_drop(connection: socket.socket) -> None:
    read_request(connection)
    time.sleep(0.2)  # the client has looked by now whether the stream had ended before its last byte


def reset_unread(connection: socket.socket) -> None:
    time.sleep(0.1)  # the request has arrived by now, and is left unread
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def serve(script: Script, *, connections: int = 1) -> int:
    """Run the script on each connection, then hang up; the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            threads = []
            for _ in range(connections):
                connection = listener.accept()[0]
                threads.append(threading.Thread(target=play, args=(connection,), daemon=True))
                threads[-1].start()
            for thread in threads:
                thread.join(10)

    def play(connection: socket.socket) -> None:
        with connection:
            script(connection)

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def ask(port: int, *, times: int = 1, seconds: float = 5.0) -> list[Entry]:
    async def exchange() -> list[Entry]:
        connection, ledger = Connection(port), Ledger()
        for _ in range(times):
            await connection.exchange(REQUEST, ledger.open(time.monotonic()), seconds=seconds)
            await asyncio.sleep(0.1)
        connection.close()
        return ledger.entries

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("script", "fate", "status"),
    [
        pytest.param(answer(OK), Fate.ANSWERED, 200, id="answered"),
        pytest.param(answer(CHUNKED), Fate.ANSWERED, 200, id="answered in chunks"),
        pytest.param(answer(CHUNKED[:-5]), Fate.CUT_OFF, 0, id="cut off between chunks"),
        pytest.param(
            answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), Fate.ANSWERED, 413, id="refused"
        ),
        pytest.param(
            answer(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"),
            Fate.TURNED_AWAY,
            503,
            id="turned away",
        ),
        pytest.param(
            answer(b"HTTP/1.1 503 Broken\r\nContent-Length: 0\r\n\r\n"),
            Fate.FAILED,
            503,
            id="503 without a word",
        ),
        pytest.param(answer(b"HTTP/1.1 200 OK\r\nContent-Le"), Fate.CUT_OFF, 0, id="cut off in the head"),
        pytest.param(answer(OK[:-1]), Fate.CUT_OFF, 0, id="cut off in the body"),
        pytest.param(read_and_drop, Fate.CUT_OFF, 0, id="read and dropped"),
        pytest.param(reset_unread, Fate.RESET, 0, id="dropped unread"),
        pytest.param(lambda connection: time.sleep(1), Fate.TIMED_OUT, 0, id="silence"),
    ],
)
def test_fate_is_what_the_server_did(script: Script, fate: Fate, status: int) -> None:
    (entry,) = ask(serve(script), seconds=0.5)

    assert (entry.fate, entry.status) == (fate, status)
    assert entry.sent is not None and entry.ended is not None and entry.started <= entry.sent <= entry.ended


def test_nobody_listening_is_not_connected() -> None:
    (entry,) = ask(free_port())

    assert (entry.fate, entry.sent) == (Fate.NOT_CONNECTED, None)


def test_connection_is_kept_and_the_answering_worker_noted() -> None:
    first, second = ask(serve(answer_for_ever), times=2)

    assert (first.reused, second.reused) == (False, True)
    assert (second.fate, second.worker) == (Fate.ANSWERED, "7")


def test_hang_up_between_requests_is_told_from_a_lost_request() -> None:
    first, second, third = ask(serve(answer(OK), connections=2), times=3)

    assert (first.fate, second.fate, third.fate) == (Fate.ANSWERED, Fate.CLOSED_BEFORE_SENT, Fate.ANSWERED)
    assert second.reused and not third.reused


def test_closed_loop_keeps_every_connection_busy() -> None:
    port = serve(answer_for_ever, connections=3)

    async def load() -> Ledger:
        async with closed_loop(Target(port, [REQUEST]), connections=3) as ledger:
            await asyncio.sleep(0.3)
        return ledger

    ledger = asyncio.run(load())

    assert set(ledger.counts()) == {"answered"}
    assert sum(not entry.reused for entry in ledger.entries) == 3
    assert len(ledger.entries) > 30


def test_open_loop_counts_a_late_answer_from_when_it_was_due() -> None:
    def slow(connection: socket.socket) -> None:
        time.sleep(0.5)
        answer_for_ever(connection)

    port = serve(slow, connections=100)
    ledger = Ledger()

    asyncio.run(open_loop(Target(port, [REQUEST]), ledger, Pace(100.0), seconds=0.6))

    assert 30 <= len(ledger.entries) <= 95  # due at random, 60 on average
    assert ledger.entries[0].seconds >= 0.5
    assert ledger.harmed() == []


def test_ping_that_does_not_come_in_two_seconds_is_missed() -> None:
    port = serve(lambda connection: time.sleep(3), connections=1)

    async def watch() -> Ledger:
        async with pings(port) as ledger:
            await asyncio.sleep(0.1)
        return ledger

    (entry,) = asyncio.run(watch()).entries

    assert entry.fate is Fate.TIMED_OUT
    assert 1.9 < entry.seconds < 3.0
