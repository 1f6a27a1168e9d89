"""Whose turn it is to take a request."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from serving.pool import Process
from serving.processes import Child

CAPACITY = 5
SECONDS = 0.1  # of a request


class Processes:
    """Processes with something in hand, each one's end of its socket in ours."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def make(self, *, in_hand: int = 0, for_seconds: float = 0.0) -> Process:
        ours, theirs = socket.socketpair()
        self._stack.enter_context(theirs)
        process = Process(Child(pid=1 << 30, socket_fd=ours.detach(), index=0))
        self._stack.callback(process._channel.close)
        process.ready = {"capacity": CAPACITY}
        process.free_slots = CAPACITY - in_hand
        process.begun = time.monotonic() - for_seconds if in_hand else 0.0
        return process


@pytest.fixture
def processes() -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack)


def in_turn(*processes: Process) -> list[int]:
    """Their places, the one that should be done first before the others."""
    return sorted(range(len(processes)), key=lambda place: processes[place].left(SECONDS))


def test_idle_process_comes_before_a_busy_one(processes: Processes) -> None:
    assert in_turn(processes.make(in_hand=1, for_seconds=0.099), processes.make()) == [1, 0]


def test_process_with_less_in_hand_comes_first(processes: Processes) -> None:
    assert in_turn(processes.make(in_hand=2), processes.make(in_hand=1)) == [1, 0]


def test_of_two_with_as_much_in_hand_the_one_that_began_earlier_comes_first(processes: Processes) -> None:
    assert in_turn(processes.make(in_hand=1), processes.make(in_hand=1, for_seconds=0.05)) == [1, 0]


def test_late_process_is_expected_to_take_as_long_again(processes: Processes) -> None:
    late = processes.make(in_hand=1, for_seconds=SECONDS + 0.25)

    assert late.left(SECONDS) == pytest.approx(0.25, abs=0.02)
    assert in_turn(late, processes.make(in_hand=2), processes.make(in_hand=3)) == [1, 0, 2]


def test_requests_of_many_pictures_are_shared_out(processes: Processes) -> None:
    """Each takes seconds and comes 15 ms after the one before, when all of them are late already."""
    first, second = processes.make(in_hand=1, for_seconds=0.045), processes.make(in_hand=1, for_seconds=0.030)
    taken = [first, second]
    for _ in range(4):
        for process in (first, second):
            process.begun -= 0.015
        taken.append(min(first, second, key=lambda process: process.left(0.006)))
        taken[-1].free_slots -= 1

    assert (taken.count(first), taken.count(second)) == (3, 3)
