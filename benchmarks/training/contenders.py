"""Runs a contender in a process of its own, and looks at its memory while it runs."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from artifact.cores import available_cores
from benchmarks.serving.environments import prepare_environment
from benchmarks.training.places import HERE, WORK
from local.platform import REPOSITORY

logger = logging.getLogger(__name__)

PEERS = ("torchvision", "timm")
CONTENDERS = ("kennel", *PEERS)
SCRIPTS = {"torchvision": "torchvision_reference.py", "timm": "timm_loop.py"}
SAMPLE_SECONDS = 0.5


class ContenderError(RuntimeError):
    """A contender ended without a result; the message has its last words."""


def prepare_peers(contenders: Sequence[str]) -> None:
    """timm in an environment of its own; the reference recipe needs what Kennel has."""
    if "timm" in contenders:
        prepare_environment("timm", requirements=HERE / "requirements", work=WORK)


def run_kennel(
    data: Path, *, settings: dict[str, Any], arguments: Sequence[str] = (), cache: Path | None = None
) -> dict[str, float]:
    """Its JSON, with peak_memory_gb; features are kept in `cache`, or in a folder of this run.

    With the allocator's settings of container/train, which starts the jobs.
    """
    pairs = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "benchmarks.training.kennel", "--data", str(data), *pairs, *arguments]
    with tempfile.TemporaryDirectory() as own:
        return _run(command, {"KENNEL_CACHE": str(cache or own), "GLIBC_TUNABLES": _tunables()})


def _tunables() -> str:
    found = re.search(r"GLIBC_TUNABLES:-([^}]+)}", (REPOSITORY / "container/train").read_text())
    if found is None:
        raise ContenderError("container/train sets no GLIBC_TUNABLES; what does it do about large tensors?")
    return found[1]


def run_peer(
    name: str, data: Path, *, architecture: str, image_size: int, arguments: Sequence[str] = ()
) -> dict[str, float]:
    """Its JSON, with peak_memory_gb."""
    python = WORK / "envs" / name / "bin" / "python" if name == "timm" else Path(sys.executable)
    command = [str(python), str(HERE / "peers" / SCRIPTS[name]), "--data", str(data)]
    command += ["--architecture", architecture, "--image-size", str(image_size)]
    command += ["--workers", str(available_cores()), *arguments]
    return _run(command, {})


def _run(command: Sequence[str], variables: dict[str, str]) -> dict[str, float]:
    logger.info("%s", " ".join(command[1:]))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"} | variables
    with tempfile.TemporaryFile("w+") as talk:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=talk, text=True
        )
        peak = PeakMemory(process.pid)
        stdout, _ = process.communicate()
        talk.seek(0)
        if process.returncode != 0:
            raise ContenderError(f"{' '.join(command)} failed: {talk.read()[-1500:]}")
    result: dict[str, float] = json.loads(stdout.splitlines()[-1])
    return result | {"peak_memory_gb": peak.gigabytes()}


class PeakMemory:
    """Proportional set size of a process and its children: shared pages count once."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def gigabytes(self) -> float:
        """Once the process has ended."""
        self._thread.join(2 * SAMPLE_SECONDS)
        return self._peak_bytes / 1e9

    def _sample(self) -> None:
        try:
            root = psutil.Process(self._pid)
            while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
                self._peak_bytes = max(
                    self._peak_bytes, sum(map(_pss, [root, *root.children(recursive=True)]))
                )
                time.sleep(SAMPLE_SECONDS)
        except psutil.Error:
            return


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
