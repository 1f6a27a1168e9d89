"""Messages between the processes arrive whole, whatever their size."""

from __future__ import annotations

import socket
import threading

import pytest

from serving import wire


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0\xff" * 30_000, id="a_picture"),
        pytest.param(bytes(range(256)) * 20_000, id="larger_than_the_sockets_buffer"),
    ],
)
def test_message_arrives_as_sent(body: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=wire.send, args=(ours, {"id": 7, "headers": ["é", None]}, body))
        sender.start()
        fields, received = wire.receive(theirs)
        sender.join()

    assert fields == {"id": 7, "headers": ["é", None]}
    assert received == body


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\x02\0\0\0\x09{}half"], ids=["at_once", "in_mid_message"])
def test_closed_socket_is_the_end(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(sent)
        ours.close()

        with pytest.raises(EOFError, match="closed"):
            wire.receive(theirs)
