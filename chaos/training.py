"""Faults on purpose, in training jobs: `python -m chaos.training [--runs 20] [--seed 0] [--only kill,disk]`.

A PASS or FAIL line per run; the last line of stdout is JSON. Exit code 1 where one failed.
docs/training-robustness.md says what is broken and what must hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.training_faults import FAULTS, Fault
from chaos.training_job import INTERVAL, LAST_STEP, TrainingJob
from local.platform import REPOSITORY

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one disturbed job did. Steps are the optimizer's."""

    fault: str
    passed: bool
    at_step: int  # the last checkpoint the job had announced when the fault struck
    resumed_from: int | None  # None for a job that finished in spite of it
    exit_code: int
    failure: str
    wrong: tuple[str, ...]

    def line(self) -> str:
        """For a person."""
        resumed = "finished" if self.resumed_from is None else f"resumed_from={self.resumed_from}"
        verdict = "PASS" if self.passed else f"FAIL ({'; '.join(self.wrong)})"
        facts = f"at_step={self.at_step} {resumed} exit_code={self.exit_code}"
        return f"{verdict} {self.fault}: {facts} {self.failure!r}"


def main() -> None:
    """Parse, run, tell."""
    arguments = _parse(sys.argv[1:])
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="kennel-chaos-") as scratch:
        runs = torment(
            Path(scratch), runs=arguments.runs, seed=arguments.seed, names=arguments.only or list(FAULTS)
        )
    passed = all(run.passed for run in runs)
    print(json.dumps({"passed": passed, "interval": INTERVAL, "runs": [asdict(run) for run in runs]}))
    sys.exit(0 if passed else 1)


def torment(scratch: Path, *, runs: int, seed: int, names: Sequence[str]) -> list[Run]:
    """The faults in turn, each at a random step, against the weights of a job that nobody disturbed."""
    data = scratch / "data"
    draw = [sys.executable, "-m", "examples.shapes", str(data), "--images-per-class", "16"]
    subprocess.run(draw, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    undisturbed = TrainingJob(scratch / "undisturbed", data)
    undisturbed.start()
    if undisturbed.wait() != 0:
        sys.exit(f"The undisturbed job failed: {undisturbed.failure()}")
    chance = random.Random(seed)
    results = []
    for number in range(runs):
        name = names[number % len(names)]
        with ExitStack() as ending:
            job = TrainingJob(scratch / f"run-{number}", data)
            ending.callback(job.end)
            result = disturb(job, name, FAULTS[name], chance, expected=undisturbed.weights(), ending=ending)
        print(result.line(), flush=True)
        results.append(result)
    return results


def disturb(
    job: TrainingJob,
    name: str,
    fault: Fault,
    chance: random.Random,
    *,
    expected: str,
    ending: ExitStack,
) -> Run:
    """Start, break, and where that ended the job start it again."""
    fault.prepare(job, ending)
    job.start()
    job.wait_for_step(chance.randrange(INTERVAL, LAST_STEP), hurry=chance.random())
    at_step = job.announced()
    fault.strike(job)
    exit_code = job.wait()
    last, failure = job.written(), job.failure()
    wrong = [*fault.judge(job, exit_code, failure), *job.gaps()]
    resumed_from = None
    if not job.is_complete():
        job.start()
        if job.wait() != 0:
            wrong.append(f"the second start failed: {job.failure()}")
        resumed_from = job.resumed_from()
        if resumed_from != last:
            wrong.append(f"resumed from {resumed_from} though {last} had been written")
    if job.weights() != expected:
        wrong.append("other weights than those of the undisturbed job")
    return Run(
        fault=name,
        passed=not wrong,
        at_step=at_step,
        resumed_from=resumed_from,
        exit_code=exit_code,
        failure=failure.splitlines()[0] if failure else "",
        wrong=tuple(wrong),
    )


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(FAULTS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(FAULTS)}")
    return names


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.training", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="jobs to disturb (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the steps where they are")
    parser.add_argument("--only", type=_names, metavar="NAME,...", help=", ".join(FAULTS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
