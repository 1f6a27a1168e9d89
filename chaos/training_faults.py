"""What can happen to a training job: how it is done, and what the job has to make of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.memory_group import MemoryGroup
from chaos.training_job import PATIENCE_SECONDS, TrainingJob

DISK_MIB = 24
GROUP_MIB = 1536  # a trainer needs a third of it
HOG = """
import sys, time
held = [bytearray(b"x") * 2**22 for _ in range(int(sys.argv[1]) // 4 - 24)]
time.sleep(600)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`judge` takes job, exit code and failure file, and names what is wrong."""

    strike: Callable[[TrainingJob], None]
    judge: Callable[[TrainingJob, int, str], list[str]]
    prepare: Callable[[TrainingJob, ExitStack], None] = lambda job, ending: None


def _kill(job: TrainingJob) -> None:
    os.kill(job.trainer, signal.SIGKILL)


def _terminate(job: TrainingJob) -> None:
    os.kill(job.launcher, signal.SIGTERM)


def _limit_memory(job: TrainingJob, ending: ExitStack) -> None:
    """A control group for all that the job starts. Raises PermissionError for anybody but root."""
    group = MemoryGroup(f"kennel-chaos-{os.getpid()}", GROUP_MIB * 2**20)
    ending.callback(group.remove)
    job.group = group


def _take_memory(job: TrainingJob) -> None:
    """From beside it in its group, until the kernel kills the trainer, which it is told to prefer."""
    assert job.group is not None
    trainer = job.trainer
    Path(f"/proc/{trainer}/oom_score_adj").write_text("1000")
    hog = subprocess.Popen([sys.executable, "-c", HOG, str(GROUP_MIB)], preexec_fn=job.group.enter)
    try:
        psutil.wait_procs([psutil.Process(trainer)], timeout=PATIENCE_SECONDS)
    finally:
        hog.kill()
        hog.wait()


def _mount(job: TrainingJob, ending: ExitStack) -> None:
    """A small disk for the checkpoints. Raises CalledProcessError for anybody but root."""
    job.checkpoints.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "kennel-chaos"]
    subprocess.run(["mount", *options, str(job.checkpoints)], check=True)
    ending.callback(subprocess.run, ["umount", "--lazy", str(job.checkpoints)], check=True)


def _fill(job: TrainingJob) -> None:
    """To the last byte, and again what the job makes room of, until it says that it has none."""
    ballast = job.checkpoints / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while "has no room" not in job.log():
            if not job.lives():
                raise RuntimeError(f"the job ended without a word about its full disk: {job.log()[-500:]}")
            with contextlib.suppress(OSError):  # ENOSPC
                while True:
                    file.write(bytes(4096))
    ballast.unlink()


def _judge_killed(job: TrainingJob, exit_code: int, failure: str) -> list[str]:
    return _expect(exit_code, 1, failure, "The training process was killed (SIGKILL)")


def _judge_stopped(job: TrainingJob, exit_code: int, failure: str) -> list[str]:
    wrong = [f"exit code {exit_code}, failure {failure!r}"] if exit_code or failure else []
    return wrong + ([] if job.weights() else ["no artifact of the best epoch so far"])


def _judge_starved(job: TrainingJob, exit_code: int, failure: str) -> list[str]:
    words = "The training process was killed by the kernel (SIGKILL): the memory ran out."
    return _expect(exit_code, 1, failure, words)


def _judge_full(job: TrainingJob, exit_code: int, failure: str) -> list[str]:
    complete = exit_code == 0 and job.is_complete()
    return [] if complete else [f"exit code {exit_code}, failure {failure!r}: it should have gone on"]


def _expect(exit_code: int, expected: int, failure: str, words: str) -> list[str]:
    wrong = [] if exit_code == expected else [f"exit code {exit_code}"]
    return wrong + ([] if words in failure else [f"failure {failure!r} does not say {words!r}"])


FAULTS = {
    "kill": Fault(strike=_kill, judge=_judge_killed),
    "terminate": Fault(strike=_terminate, judge=_judge_stopped),
    "disk": Fault(strike=_fill, judge=_judge_full, prepare=_mount),
    "memory": Fault(strike=_take_memory, judge=_judge_starved, prepare=_limit_memory),
}
