"""What SageMaker does around a container, for a plain process: folders, config files, signals."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SERVING_ENVIRONMENT = REPOSITORY / ".venv-serving-cpu"  # made by `make setup`: no torch in it
SAME_SIGNAL_SECONDS = 1.0  # `timeout` and systemd send it to `make` and to us, and `make` passes its own on


class LocalError(RuntimeError):
    """A job or endpoint that failed or cannot start; the message says why and what to do."""


def lay_out_training_job(
    prefix: Path,
    *,
    hyperparameters: Mapping[str, str],
    channels: Mapping[str, Path],
    hosts: Sequence[str] = ("algo-1",),
    current_host: str | None = None,
    sharded: Collection[str] = (),
    seen_as: Path | None = None,
) -> None:
    """Make `prefix` look like /opt/ml at a job's start on `current_host`, the first of `hosts` unless given.

    The channels are links, or empty folders to mount them on where the job sees the prefix elsewhere, in a
    container (`seen_as`); `sharded` names those of which it gets a part. Checkpoints of an interrupted job
    stay.
    """
    for name in ("input", "model", "output"):
        shutil.rmtree(prefix / name, ignore_errors=True)
    for name in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (prefix / name).mkdir(parents=True, exist_ok=True)
    for name, source in channels.items():
        channel = prefix / "input" / "data" / name
        channel.mkdir() if seen_as else channel.symlink_to(source.resolve())
    config: dict[str, Mapping[str, Any]] = {
        "hyperparameters": hyperparameters,
        "inputdataconfig": {
            name: {
                "TrainingInputMode": "File",
                "S3DistributionType": "ShardedByS3Key" if name in sharded else "FullyReplicated",
                "RecordWrapperType": "None",
            }
            for name in channels
        },
        "resourceconfig": {
            "current_host": current_host or hosts[0],
            "hosts": list(hosts),
            "network_interface_name": "eth0" if seen_as else "lo",
        },
        "checkpointconfig": {"LocalPath": str((seen_as or prefix.resolve()) / "checkpoints")},
    }
    for name, content in config.items():
        (prefix / "input" / "config" / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def container_environment(python: Path, **variables: str) -> dict[str, str]:
    """This process's environment with `python` first on PATH and the repository's packages importable."""
    return dict(os.environ) | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(REPOSITORY),
        **variables,
    }


def training_python() -> Path:
    """The interpreter of the training environment: the one running this."""
    return Path(sys.executable)


def serving_python() -> Path:
    """The interpreter of the serving environment, or this one where `make setup` has not made it."""
    python = SERVING_ENVIRONMENT / "bin" / "python"
    return python if python.exists() else Path(sys.executable)


class Stopping:
    """SIGTERM and Ctrl-C on their way to the processes.

    No threading.Event: one that is set in a signal handler waits for itself when the next signal comes.
    """

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self._received = -math.inf  # the last one, time.monotonic()

    def is_set(self) -> bool:
        """Whether one came."""
        return self._received > -math.inf

    def receive(self, number: int, frame: FrameType | None) -> None:
        """As signal.signal wants its handlers. Either is SIGTERM to the processes."""
        before, self._received = self._received, time.monotonic()
        if self._received - before > SAME_SIGNAL_SECONDS:
            for process in self._processes:
                process.send_signal(signal.SIGTERM)


@contextmanager
def forward_signals(*processes: subprocess.Popen[bytes]) -> Iterator[Stopping]:
    """SIGTERM and Ctrl-C stop the processes as the platform would; what is yielded says whether one came."""
    stopping = Stopping(processes)
    before = {number: signal.signal(number, stopping.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_process(*processes: subprocess.Popen[bytes], grace_seconds: float) -> list[int]:
    """SIGTERM, then SIGKILL when the grace is over: 120 s for training, 30 s for serving. The exit codes."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    return [process.wait() for process in processes]


def free_port(asked: int = 0) -> int:
    """A TCP port nothing listens on, for as long as nobody else takes it.

    Raises LocalError where it is to be the one `asked` for and that is taken.
    """
    with socket.socket() as unused:
        unused.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a server that has ended is no hindrance
        try:
            unused.bind(("127.0.0.1", asked))
        except OSError as error:
            raise LocalError(
                f"Port {asked} cannot be listened on ({error.strerror}); choose another with --port, as in "
                "`make serve PORT=8081`."
            ) from None
        return int(unused.getsockname()[1])
