"""Messages between the processes arrive whole, whatever their size."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from serving import wire
from serving.messages import Report


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
        sender = threading.Thread(
            target=wire.Channel(ours).send, args=({"id": 7, "headers": ["é", None]}, body)
        )
        sender.start()
        channel = wire.Channel(theirs)
        assert channel.wait(20)
        fields, received = channel.receive()
        sender.join()

    assert fields == {"id": 7, "headers": ["é", None]}
    assert received == body


def test_messages_that_arrive_together_are_told_apart() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in range(3):
            wire.Channel(ours).send({"id": number}, b"x" * number)
        channel = wire.Channel(theirs)

        assert [(channel.wait(20), *channel.receive()) for _ in range(3)] == [
            (True, {"id": i}, b"x" * i) for i in range(3)
        ]
        assert not channel.wait(0)


@pytest.mark.parametrize("value", [Report((), (), ()), Path()], ids=["named_tuple", "path"])
def test_field_that_does_not_travel_is_refused(value: object) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="unmarshallable"):
        wire.Channel(ours).send({"field": value})


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\x02\0\0\0\x09{0half"], ids=["at_once", "in_mid_message"])
def test_closed_socket_is_the_end(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(sent)
        ours.close()

        with pytest.raises(EOFError, match="closed"):
            wire.Channel(theirs).receive()
