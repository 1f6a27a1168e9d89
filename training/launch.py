"""The trainer's processes, one or one for each GPU: started, stopped, failing and started again together.

A process that the kernel killed cannot say why, and all it did since the checkpoint is lost: this one, which
loads no torch, says it in its place, and starts the processes again where the job allows that.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from training.job import JobError, write_failure

logger = logging.getLogger(__name__)

PROCESSES_VARIABLE = "KENNEL_PROCESSES_PER_HOST"
LAST_SECONDS = 90.0  # what is left after one failed gets so long to notice and to say why
AGAIN = 75  # EX_TEMPFAIL, the exit code of a process that has lost another one: it may come back
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None)  # loaded before the fork
NVIDIA_DRIVER = Path("/dev/nvidiactl")
OUT_OF_MEMORY = "the memory ran out. Lower batch_size or image_size, or take a machine with more."
ADVICE = {
    signal.SIGKILL: "by a person, or by whoever watches over its memory.",
    signal.SIGABRT: "a library gave up, often because the memory ran out, see the end of its log.",
    signal.SIGTERM: "a second time, before it had saved everything.",
    signal.SIGBUS: "a file mapped into memory could not be written: is the disk of TMPDIR or /dev/shm full?",
}


@dataclass(slots=True, kw_only=True)
class Launcher:
    """Runs the processes of one host."""

    failure_path: Path  # gets the cause where they cannot write it themselves
    checkpoint_dir: Path
    restarts: int = 0  # so often all are started again after one was ended by a signal
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)  # that came

    def run(self, commands: Sequence[Sequence[str]]) -> int:
        """Run all to their end, each with `--attempt N` added, and pass signals on; 1 if any failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        first_cause = ""
        for attempt in range(self.restarts + 1):
            ooms = count_oom_kills()
            codes = self._run_once([[*command, "--attempt", str(attempt)] for command in commands])
            if not any(codes):
                return 0
            cause = self._say_why(codes, oom_killed=count_oom_kills() > ooms)
            first_cause = first_cause or cause.splitlines()[0]
            lost = any(code is not None and (code < 0 or code == AGAIN) for code in codes)
            if self._signals or not lost or attempt == self.restarts:
                break
            logger.warning("%s Starting again: %d of %d.", cause, attempt + 1, self.restarts)
            self.failure_path.unlink()
        if attempt:
            self.failure_path.unlink()
            write_failure(
                self.failure_path, f"{cause} It was started again {attempt} times after: {first_cause}"
            )
        return 1

    def _run_once(self, commands: Sequence[Sequence[str]]) -> list[int | None]:
        """Exit codes, negative for a signal; None for what had to be ended when others failed."""
        # In groups of their own: Ctrl-C on a terminal is for this process, which passes it on.
        self._processes = [
            subprocess.Popen(command, process_group=0, preexec_fn=_die_with_parent) for command in commands
        ]
        for number in self._signals:  # while they were starting
            self._send(number)
        codes = self._codes()
        deadline = math.inf
        while None in codes and time.monotonic() < deadline:
            time.sleep(0.05)
            codes = self._codes()
            if any(codes) and deadline == math.inf:
                # Beside a killed one the others have nothing to finish and nothing to say.
                killed = any(code is not None and code < 0 for code in codes)
                deadline = time.monotonic() + (0.0 if killed else LAST_SECONDS)
        for process in self._processes:
            process.kill()
            process.wait()
        return codes

    def _codes(self) -> list[int | None]:
        """So far. Who is stopped before it can do anything about it has been stopped in good order."""
        codes = [process.poll() for process in self._processes]
        stopped = [-number for number in self._signals] if len(self._signals) == 1 else []
        return [0 if code in stopped else code for code in codes]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        self._send(number)

    def _send(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)

    def _say_why(self, codes: Sequence[int | None], *, oom_killed: bool) -> str:
        """What the failure file says, once it says something."""
        with contextlib.suppress(FileNotFoundError):
            if said := self.failure_path.read_text(encoding="utf-8", errors="replace"):
                return said
            self.failure_path.unlink()
        index, code = next((index, code) for index, code in enumerate(codes) if code)
        which = f" {index + 1} of {len(codes)}" if len(codes) > 1 else ""
        sentence = f"The training process{which} {explain_exit(code, oom_killed=oom_killed)}"
        if checkpoints := sorted(self.checkpoint_dir.glob("step-*.pt")):
            sentence += f" The checkpoint of step {int(checkpoints[-1].stem[5:])} is kept."
        write_failure(self.failure_path, sentence)
        logger.error("%s", sentence)
        return sentence


def explain_exit(code: int, *, oom_killed: bool) -> str:
    """Half a sentence for a process that could not write one; `code` is negative for a signal."""
    if code > 0:
        return f"ended with exit code {code} and gave no reason: see the end of its log."
    number = signal.Signals(-code)
    if number == signal.SIGKILL and oom_killed:
        return f"was killed by the kernel (SIGKILL): {OUT_OF_MEMORY}"
    advice = ADVICE.get(number, "a fault of the machine or of a library, see the end of its log.")
    return f"was killed ({number.name}): {advice}"


def count_oom_kills(root: Path = Path("/")) -> int:
    """By the kernel, in this process's control group, else on the whole machine; 0 where nobody tells."""
    for path in _oom_counters(root):
        try:
            counters = dict(line.split() for line in path.read_text().splitlines())
            return int(counters["oom_kill"])
        except (OSError, KeyError):
            continue
    return 0


def _oom_counters(root: Path) -> list[Path]:
    """Of control groups version 1 and 2; in a container its own group is mounted at the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups = {names: path.lstrip("/") for _, names, path in (line.split(":", 2) for line in lines)}
    first, second = root / "sys/fs/cgroup/memory", root / "sys/fs/cgroup"
    return [
        first / groups.get("memory", "") / "memory.oom_control",
        first / "memory.oom_control",
        second / groups.get("", "") / "memory.events",
        second / "memory.events",
        root / "proc/vmstat",
    ]


def processes_per_host() -> int:
    """One for each GPU, else one, or KENNEL_PROCESSES_PER_HOST. Raises JobError for a wrong value."""
    gpus = _count_gpus()
    text = os.environ.get(PROCESSES_VARIABLE, str(max(1, gpus)))
    if not text.isdecimal() or int(text) < 1 or (gpus and int(text) > gpus):
        limit = f" from 1 to {gpus}, the number of GPUs" if gpus else " from 1"
        raise JobError(f"{PROCESSES_VARIABLE}={text!r} is not a whole number{limit}.")
    return int(text)


def _count_gpus() -> int:
    """As torch does, which takes seconds to load: only where there is a driver."""
    if not NVIDIA_DRIVER.exists():
        return 0
    import torch

    return torch.cuda.device_count()


def _die_with_parent() -> None:
    """Without it nobody would see to the process, nor stop it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
