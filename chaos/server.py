"""The real server, container/serve with the serving environment's Python, and its processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.connection import Connection, build_request
from chaos.ledger import Entry, Fate
from local.platform import REPOSITORY, container_environment, free_port, serving_python, stop_process

START_SECONDS = 120.0
GRACE_SECONDS = 30.0  # SageMaker's between SIGTERM and SIGKILL
INFERENCE_MODULE = "serving.inference"  # how a process that predicts is started; a front has it not


@dataclass(frozen=True, slots=True)
class Server:
    """A started server; `master` is gunicorn's."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[psutil.Process]:
        """Every process below the master: HTTP fronts and those that predict."""
        try:
            return list(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def predicting(self) -> list[psutil.Process]:
        """Those that predict; where the fronts do it themselves, the fronts."""
        workers = self.workers()
        return [worker for worker in workers if _predicts(worker)] or workers

    def predicting_seconds(self) -> float:
        """Processor time of those that predict, since each began."""
        seconds = 0.0
        for process in self.predicting():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def usage(self) -> tuple[int, int]:
        """Proportional set size in bytes and open descriptors, of all its processes together."""
        pss = descriptors = 0
        for process in [psutil.Process(self.process.pid), *self.workers()]:
            with suppress(psutil.NoSuchProcess):  # replaced while we look
                pss += process.memory_full_info().pss
                descriptors += process.num_fds()
        return pss, descriptors

    def log_tail(self) -> str:
        """The last words."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])


def kill_one(processes: Sequence[psutil.Process], number: signal.Signals) -> psutil.Process | None:
    """Send a signal to one of them by chance; which one, or None where it had died already."""
    victim = random.choice(processes) if processes else None
    try:
        if victim is not None:
            victim.send_signal(number)
        return victim
    except psutil.NoSuchProcess:
        return None


def start_process(model_dir: Path, log: Path, *, limits: str = "", **variables: str) -> Server:
    """Start it and do not wait; `limits` is shell put before, such as `ulimit -n 64`."""
    port = free_port()
    environment = container_environment(serving_python(), **variables) | {
        "KENNEL_MODEL_DIR": str(model_dir),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    script = f"{limits or ':'}; exec {REPOSITORY / 'container/serve'}"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd="/",
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # a process group of its own, to be ended as one
        )
    return Server(port, process, log)


@asynccontextmanager
async def running(model_dir: Path, log: Path, *, limits: str = "", **variables: str) -> AsyncIterator[Server]:
    """A server that answered /ping; stopped at the end, and killed where it does not stop."""
    server = start_process(model_dir, log, limits=limits, **variables)
    try:
        await wait_for_ping(server)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGCONT)
        await asyncio.to_thread(stop_process, server.process, grace_seconds=GRACE_SECONDS)
        with suppress(ProcessLookupError):  # the children of a killed front may have outlived it
            os.killpg(server.process.pid, signal.SIGKILL)


async def wait_for_ping(server: Server, *, seconds: float = START_SECONDS) -> float:
    """Seconds until /ping was 200. Raises RuntimeError with the log's end where it never is."""
    started = time.monotonic()
    while time.monotonic() - started < seconds and server.process.poll() is None:
        connection, entry = Connection(server.port), Entry(0, time.monotonic())
        await connection.exchange(build_request("/ping"), entry, seconds=2.0)
        connection.close()
        if entry.fate is Fate.ANSWERED and entry.status == 200:
            return time.monotonic() - started
        await asyncio.sleep(0.05)
    raise RuntimeError(f"The server gave no /ping within {seconds:g} s; it said: {server.log_tail()}")


def _predicts(process: psutil.Process) -> bool:
    try:
        return INFERENCE_MODULE in process.cmdline()
    except psutil.Error:
        return False


def is_root() -> bool:
    """Whether file systems can be mounted here, with some luck."""
    return os.geteuid() == 0
