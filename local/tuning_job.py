"""A tuning job as SageMaker runs one: trials side by side, each a training job, the bad ones stopped early.

A search that was killed goes on when it is started again: what ended is remembered, what ran is resumed.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.container import require_image
from local.platform import REPOSITORY, LocalError, container_environment, forward_signals, training_python
from local.tuning_plan import (
    Plan,
    describe_ranges,
    link_channels,
    share_cores,
    trial_command,
    write_trial_recipe,
)
from local.tuning_search import Fact, Search, Suggestion
from local.tuning_trial import OUTCOME, read_outcome, wait_until_free
from tuning.curves import read_curve
from tuning.leaderboard import Board
from tuning.results import NAME, Results, Trial, jobs_without_improvement, write_results

POLL_SECONDS = 0.2
LOG = "log.txt"
REASON_CHARACTERS = 500
KILLED = f"exit code {-signal.SIGKILL}"
MEMORY_HINT = "Was there too little memory? Fewer trials at once (max_parallel_jobs) need less."

Curve = list[dict[str, float]]


def run_tuning_job(plan: Plan, *, board: Board, parents: Sequence[Results] = ()) -> Results:
    """Search, or go on searching, until it is over; the results are in `output`/tuning.json all the while.

    Raises LocalError where the folder holds another search, or no trial ended with a score.
    """
    if plan.image:
        require_image(plan.image)
    data = link_channels(plan)
    search = Search(
        plan.output / "search.db",
        plan.tuning,
        max_epochs=plan.max_epochs,
        seed=plan.recipe.hyperparameters.seed,
    )
    search.check_same(plan.identity)
    for parent in parents:
        search.learn_from(parent)
    job = _Job(plan=plan, search=search, data=data, board=board, before=search.seconds)
    with forward_signals() as interrupted:
        job.run(interrupted.is_set)
    results = job.results()
    write_results(results, plan.output / NAME)
    if results.best is None and not interrupted.is_set():
        reason = results.trials[0].reason if results.trials else "none was started"
        raise LocalError(f"None of {len(results.trials)} trials has a score. The first: {reason}")
    return results


@dataclass(slots=True, kw_only=True)
class _Running:
    number: int
    folder: Path
    process: subprocess.Popen[bytes]
    slot: int


@dataclass(slots=True, kw_only=True)
class _Job:
    plan: Plan
    search: Search
    data: Path
    board: Board
    before: float  # seconds, until it was last interrupted
    over: str = ""  # why it ends before its last trial
    running: list[_Running] = field(default_factory=list)
    curves: dict[Path, tuple[int, Curve]] = field(default_factory=dict)  # log -> its size when read
    started: float = field(default_factory=time.monotonic)

    def run(self, interrupted: Callable[[], bool]) -> None:
        """Keep as many trials running as may, until nothing is left to do."""
        waiting = self.search.unfinished()
        for suggestion in waiting:
            wait_until_free(self._folder(suggestion.number))
        try:
            while not interrupted():
                self._fill(waiting)
                if not self.running:
                    break
                time.sleep(POLL_SECONDS)
                self._look()
                self.board(self.results())
        finally:
            self._interrupt()
            self.search.seconds = self._seconds()

    def results(self) -> Results:
        """As far as the search is."""
        plan, tuning = self.plan, self.plan.tuning
        return Results(
            name=plan.recipe.name,
            place="containers on this machine" if plan.image else "this machine",
            objective=tuning.objective,
            direction=tuning.direction,
            strategy=tuning.strategy,
            early_stopping=tuning.early_stopping,
            max_jobs=plan.max_jobs,
            max_parallel_jobs=plan.max_parallel_jobs,
            ranges=describe_ranges(tuning),
            fixed=plan.fixed,
            seconds=round(self._seconds(), 1),
            machines=f"{tuning.instance_count} processes" if tuning.instance_count > 1 else "1 process",
            over=self.over,
            trials=tuple(map(self._describe, self.search.begun())),
        )

    def _fill(self, waiting: list[Suggestion]) -> None:
        """Start trials until all slots are taken, those first that an interrupted search left."""
        while len(self.running) < self._slots():
            suggestion = waiting.pop(0) if waiting else self._next()
            if suggestion is None:
                return
            self._start(suggestion)

    def _slots(self) -> int:
        """One until the features of a frozen backbone are there: they are computed by all cores, for all."""
        is_frozen = self.plan.recipe.hyperparameters.freeze_backbone
        is_first = is_frozen and not any(trial.curve for trial in self.results().trials)
        return 1 if is_first else self.plan.max_parallel_jobs

    def _next(self) -> Suggestion | None:
        self.over = self.over or self._reason_to_end()
        if self.over or self.search.count >= self.plan.max_jobs:
            return None
        suggestion = self.search.ask()
        if suggestion is None:
            self.over = "every combination was tried"
        return suggestion

    def _reason_to_end(self) -> str:
        """A completion criterion that is met."""
        tuning, results = self.plan.tuning, self.results()
        best = results.best
        reached = tuning.target is not None and best is not None
        if reached and results.loss(best.objective if best else None) <= results.loss(tuning.target):
            return f"the target of {tuning.target} was reached"
        most = tuning.max_jobs_not_improving
        if most and jobs_without_improvement(results) >= most:
            return f"{most} trials in a row were no better"
        if tuning.max_run_seconds and self._seconds() > tuning.max_run_seconds:
            return f"max_run_seconds={tuning.max_run_seconds} were over"
        return ""

    def _start(self, suggestion: Suggestion) -> None:
        number = suggestion.number
        self.search.begin(number)
        folder = self._folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = read_outcome(folder)
        if self.search.reason(number) or (outcome is not None and not outcome["stopped"]):
            self._settle(number, folder, exit_code=0)  # it ended after the search had been killed
            return
        if outcome is not None:
            self.search.add_seconds(number, outcome["seconds"])
            (folder / OUTCOME).unlink()
        recipe, taken = folder / "recipe.toml", {trial.slot for trial in self.running}
        write_trial_recipe(self.plan, suggestion.parameters, recipe)
        slot = next(slot for slot in range(self.plan.max_parallel_jobs) if slot not in taken)
        cores = share_cores(slot, self._slots())
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                trial_command(self.plan, recipe=recipe, data=self.data, output=folder, cores=cores),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=container_environment(training_python()),
                cwd=REPOSITORY,
                start_new_session=True,  # Ctrl-C reaches the search only
            )
        self.running.append(_Running(number=number, folder=folder, process=process, slot=slot))

    def _look(self) -> None:
        """Hear what the trials say, stop the bad ones, and settle those that ended."""
        end_all = self.over and self.over != "every combination was tried"
        for trial in list(self.running):
            reason = self.search.report(trial.number, self._values(trial.folder))
            if (reason or end_all) and not self.search.reason(trial.number):
                self.search.set_reason(trial.number, reason or self.over)
                _close(trial.process)
            exit_code = trial.process.poll()
            if exit_code is not None:
                self.running.remove(trial)
                self._settle(trial.number, trial.folder, exit_code=exit_code)
        self.over = self.over or self._reason_to_end()

    def _settle(self, number: int, folder: Path, *, exit_code: int) -> None:
        """Score a trial that ended, or say why it has no score."""
        values = self._values(folder)
        self.search.report(number, values)
        outcome = read_outcome(folder)
        self.search.add_seconds(number, outcome["seconds"] if outcome else 0.0)
        if self.search.reason(number):
            self.search.stop(number)
        elif outcome is None:
            self.search.fail(number, f"Its process ended with exit code {exit_code}. {MEMORY_HINT}")
        elif outcome["failure"]:
            self.search.fail(number, _first_sentence(outcome["failure"]))
        elif not values:
            objective = self.plan.tuning.objective
            self.search.fail(number, f"It printed no finite {objective}. Is there a folder of valid images?")
        elif outcome["stopped"]:
            self.search.set_reason(number, "stopped from outside")
            self.search.stop(number)
        else:
            self.search.complete(number, values[max(values)])
        self.search.seconds = self._seconds()
        write_results(self.results(), self.plan.output / NAME)

    def _interrupt(self) -> None:
        """Stop what runs; what was not decided yet is resumed by the next search in this folder."""
        for trial in self.running:
            _close(trial.process)
        for trial in self.running:
            exit_code = trial.process.wait()
            outcome = read_outcome(trial.folder)
            if self.search.reason(trial.number) or (outcome and not outcome["stopped"]):
                self._settle(trial.number, trial.folder, exit_code=exit_code)

    def _folder(self, number: int) -> Path:
        return self.plan.output / "trials" / f"{self.search.position(number):03d}"

    def _values(self, folder: Path) -> dict[int, float]:
        """Epoch -> objective, as far as printed."""
        objective = self.plan.tuning.objective
        curve = self._curve(folder)
        return {epoch: row[objective] for epoch, row in enumerate(curve, start=1) if objective in row}

    def _curve(self, folder: Path) -> Curve:
        log = folder / LOG
        size = log.stat().st_size if log.exists() else 0
        if size and self.curves.get(log, (0, []))[0] != size:
            self.curves[log] = size, read_curve(log.read_text(encoding="utf-8", errors="replace"))
        return self.curves.get(log, (0, []))[1]

    def _describe(self, fact: Fact) -> Trial:
        folder = self._folder(fact.number)
        running = max(0.0, time.time() - fact.started) if fact.state == "running" else 0.0
        return Trial(
            number=fact.position,
            state=fact.state,
            parameters=fact.parameters,
            objective=fact.objective,
            reason=fact.reason,
            curve=tuple(self._curve(folder)),
            epochs=int(fact.parameters.get("epochs", self.plan.recipe.hyperparameters.epochs)),
            seconds=fact.seconds or running,
            started=fact.started,
            job=str(folder.relative_to(self.plan.output)),
        )

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def _close(process: subprocess.Popen[bytes]) -> None:
    """End its standard input, by which it stops."""
    assert process.stdin
    process.stdin.close()


def _first_sentence(failure: str) -> str:
    """Without the traceback below it."""
    reason = failure.strip().splitlines()[0][:REASON_CHARACTERS].removeprefix("The training job failed. ")
    return f"{reason} {MEMORY_HINT}" if KILLED in reason else reason
