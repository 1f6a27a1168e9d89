"""How a worker that cannot start ends the whole server, with one sentence that only the master prints.

gunicorn restarts dying workers for ever, or halts with its own lines and, when two fail at once, a traceback.
So the first failing worker leaves its sentence in memory shared with the master and asks it to stop.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from typing import NoReturn

# Made when gunicorn's master imports this, before it forks: a ready flag, then the sentence.
MASTER_PID = os.getpid()
_SHARED = mmap.mmap(-1, 4096)


def mark_ready() -> None:
    """A worker has loaded the model."""
    _SHARED[0] = 1


def is_ready() -> bool:
    """Whether any worker ever loaded the model."""
    return _SHARED[0] == 1


def read_failure() -> str:
    """The sentence of the worker that could not start; empty where none failed."""
    return _SHARED[1:].rstrip(b"\0").decode(errors="replace")


def stop_server(sentence: str) -> None:
    """Leave the sentence (the first one stays) and ask the master to stop."""
    if not read_failure():
        content = " ".join(sentence.split()).encode()[: len(_SHARED) - 1]
        _SHARED[1 : 1 + len(content)] = content
    os.kill(MASTER_PID, signal.SIGTERM)


def refuse_to_start(sentence: str) -> NoReturn:
    """End this worker and the server with it; without a gunicorn master, this process."""
    if os.getpid() == MASTER_PID:
        sys.exit(sentence)
    stop_server(sentence)
    sys.exit(0)  # a non-zero code would make gunicorn halt in its own, noisier way
