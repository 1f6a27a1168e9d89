"""Nothing a measured server started may outlive it, and all of it is counted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from benchmarks.serving.processes import start_processes

# A child below the process, and a daemon that leaves the tree and the session, as those of some peers do.
from tests.waiting import wait_until

PROGRAM = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
subprocess.Popen(sleep)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, sleep)
    os._exit(0)
os.wait()
print("started", flush=True)
time.sleep(60)
"""


def test_daemon_that_left_the_tree_is_counted_and_ended(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with start_processes([sys.executable, "-c", PROGRAM], os.environ, log, cwd=tmp_path) as processes:
        wait_until(lambda: log.read_text() == "started\n" and len(processes.members()) == 3)
        members = processes.members()
        assert processes.memory_mb() > 1
        assert processes.cpu_seconds() > 0
        assert processes.last_words() == "started"

    assert not any(psutil.pid_exists(member.pid) and member.is_running() for member in members)
