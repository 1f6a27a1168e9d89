"""Signals on their way to the processes: none may be lost, and none may hold up the one who passes it on."""

from __future__ import annotations

import json
import subprocess
import sys

from local.platform import REPOSITORY

# A second SIGTERM at every call that answering the first one makes, one after the other.
SECOND_AT_EVERY_CALL = """
import json, signal, sys
from local.platform import forward_signals

class Process:
    sent = 0
    def send_signal(self, number):
        self.sent += 1

calls, at, rounds = 1, 0, []
while at < calls:
    at, calls, process = at + 1, 0, Process()
    def look(frame, event, argument):
        global calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGTERM)
    with forward_signals(process) as stopping:
        sys.setprofile(look)
        signal.raise_signal(signal.SIGTERM)
        sys.setprofile(None)
    rounds.append([process.sent, stopping.is_set()])
print(json.dumps(rounds))
"""


def test_a_second_signal_at_any_moment_neither_blocks_nor_is_passed_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SECOND_AT_EVERY_CALL],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) > 5
    assert all(is_set for _, is_set in rounds)
    # Before the first one's time is noted the second counts as the first.
    assert {sent for sent, _ in rounds} <= {1, 2}
    assert sum(sent == 1 for sent, _ in rounds) >= len(rounds) / 2
