"""What gunicorn's master and its HTTP process share: the children that predict, and how starting fails.

A model that cannot be loaded ends the whole server with one sentence that only the master prints: gunicorn
itself would restart dying workers for ever, or halt with its own lines. So whoever fails first leaves its
sentence in memory shared with the master and asks it to stop.
"""

from __future__ import annotations

import mmap
import os
import signal

from serving.processes import Child

# Made when gunicorn's master imports this, before it forks: a ready flag, then the sentence.
MASTER_PID = os.getpid()
_SHARED = mmap.mmap(-1, 4096)

# Of this HTTP process: the children the master started for it, and whether SIGTERM came.
children: list[Child] = []
draining = False


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


def start_draining() -> None:
    """SIGTERM came: /ping says so from now on."""
    global draining
    draining = True
