"""A small real training job to be disturbed: `container/train` on a prefix, watched by its log."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import time
from pathlib import Path

import psutil

from chaos.memory_group import MemoryGroup
from local.platform import REPOSITORY, container_environment, lay_out_training_job, training_python

INTERVAL = 3  # steps between checkpoints
STEPS_PER_EPOCH = 8
TOTAL_STEPS = 6 * STEPS_PER_EPOCH
LAST_STEP = TOTAL_STEPS - STEPS_PER_EPOCH  # to be disturbed at: a checkpoint has to follow
HYPERPARAMETERS = {
    "architecture": "cnn",
    "image_size": "48",
    "resize": "54",
    "epochs": str(TOTAL_STEPS // STEPS_PER_EPOCH),
    "batch_size": "8",
    "learning_rate": "0.02",
    "precision": "fp32",
    "checkpoint_steps": str(INTERVAL),
    "doctor": "off",
    "quantize": "off",
}
PATIENCE_SECONDS = 600.0


class TrainingJob:
    """One job, started once or twice."""

    def __init__(self, prefix: Path, data: Path) -> None:
        self.prefix = prefix
        self.group: MemoryGroup | None = None  # that it runs in
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self._log = prefix.with_suffix(".log")
        self._starts = 0

    @property
    def checkpoints(self) -> Path:
        """Where they are written."""
        return self.prefix / "checkpoints"

    def start(self, **hyperparameters: str) -> None:
        """As SageMaker would, a second time with the checkpoints of the first."""
        lay_out_training_job(
            self.prefix,
            hyperparameters=HYPERPARAMETERS | hyperparameters,
            channels={split: self._data / split for split in ("train", "valid")},
        )
        self._starts += 1
        self._log = self.prefix.parent / f"{self.prefix.name}-{self._starts}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(REPOSITORY / "container" / "train")],
                env=container_environment(training_python(), KENNEL_PREFIX=str(self.prefix)),
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=self.group.enter if self.group else None,
            )

    def wait(self) -> int:
        """For its end; the exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    def lives(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """Whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def launcher(self) -> int:
        """The process that SageMaker sees."""
        assert self._process is not None
        return self._process.pid

    @property
    def trainer(self) -> int:
        """The process that computes."""
        (child,) = psutil.Process(self.launcher).children()
        return int(child.pid)

    def log(self) -> str:
        """So far, of the last start."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, words: str) -> None:
        """Raises RuntimeError where the job ends before it says so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in self.log():
            if not self.lives() or time.monotonic() > deadline:
                raise RuntimeError(f"the job never said {words!r}: {self.log()[-500:]}")
            time.sleep(0.002)

    def wait_for_step(self, step: int, *, hurry: float) -> None:
        """Until about then: the checkpoint before it, and a share of the time to the next one."""
        self.wait_for_log(f"step-{INTERVAL:09d}.pt")
        first = time.monotonic()
        reached = step // INTERVAL * INTERVAL
        self.wait_for_log(f"step-{reached:09d}.pt")
        intervals = max(1, reached // INTERVAL - 1)
        time.sleep(hurry * min(1.0, (time.monotonic() - first) / intervals))

    def announced(self) -> int:
        """The step of the last checkpoint that the log calls written; 0 for none."""
        return max(self._steps(), default=0)

    def written(self) -> int:
        """The step of the newest checkpoint: a kill may come between it and the log's word for it."""
        in_place = [int(path.stem.removeprefix("step-")) for path in self.checkpoints.glob("step-*.pt")]
        return max(self.announced(), *in_place, 0)

    def gaps(self) -> list[str]:
        """Places where more than an interval lay between two checkpoints, though none was refused."""
        steps = [self.resumed_from() or 0, *self._steps()]
        if "has no room" in self.log():
            return []
        return [
            f"no checkpoint between {a} and {b}" for a, b in itertools.pairwise(steps) if b - a > INTERVAL
        ]

    def _steps(self) -> list[int]:
        return [int(step) for step in re.findall(r"checkpoint=\S*step-(\d+)\.pt$", self.log(), re.MULTILINE)]

    def resumed_from(self) -> int | None:
        """The step at which the last start went on."""
        found = re.search(r"resumed epoch=(\d+) step=(\d+)", self.log())
        return int(found[1]) * STEPS_PER_EPOCH + int(found[2]) if found else None

    def failure(self) -> str:
        """What SageMaker would show."""
        path = self.prefix / "output" / "failure"
        return path.read_text() if path.is_file() else ""

    def is_complete(self) -> bool:
        """Whether all epochs are done and exported."""
        return "stopped=false" in self.log() and bool(self.weights())

    def weights(self) -> str:
        """A digest of the exported ones; empty without."""
        path = self.prefix / "model" / "weights.safetensors"
        whole = (self.prefix / "model" / "manifest.json").is_file()
        return hashlib.sha256(path.read_bytes()).hexdigest() if whole else ""
