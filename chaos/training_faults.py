"""What can happen to a training job: how it is done, and what the job has to make of it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psutil

from chaos.training_job import TrainingJob

DISK_MIB = 24


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


def _take_memory(job: TrainingJob) -> None:
    """From now on the trainer gets no more address space than it has."""
    size = psutil.Process(job.trainer).memory_info().vms
    resource.prlimit(job.trainer, resource.RLIMIT_AS, (size, size))


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
    """It may have had all the memory it needed."""
    return [] if exit_code == 0 and job.is_complete() else _expect(exit_code, 1, failure, "memory")


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
    "memory": Fault(strike=_take_memory, judge=_judge_starved),
}
