"""Which values to try next, and what was learnt from the last: Optuna, its memory a SQLite file.

Every step is in the file before it is acted on, so a search that is killed goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from local.platform import LocalError
from local.tuning_stopping import Values, reason_to_stop
from training.recipe_fields import Scalar
from training.recipe_tuning import CategoricalRange, ContinuousRange, Range, Tuning
from tuning.results import Results, State, Trial

STARTUP_SHARE = 3  # a third of the trials at random, then the sampler has something to judge by
MAX_STARTUP = 10
PATIENCE = 20  # suggestions in a row that were tried before: then at random, not where the sampler is sure
MAX_DUPLICATES = 200  # of those: then there is nothing new
STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
# Names of what is remembered of a trial, beside its values.
DUPLICATE, PARENT, REASON, SECONDS = "duplicate_of", "parent", "reason", "seconds"
POSITION, STARTED = "position", "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Values to try, and the number of the trial they belong to."""

    number: int
    parameters: dict[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What is remembered of a trial."""

    number: int  # of its suggestion
    position: int  # from 1, among those that were started
    state: State
    parameters: dict[str, Scalar]
    objective: float | None
    reason: str
    seconds: float
    started: float  # seconds since the Epoch


class Search:
    """A study in a file. Its numbers count every suggestion, also those that were tried before."""

    def __init__(self, file: Path, tuning: Tuning, *, max_epochs: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._tuning = tuning
        self._space = {name: _distribution(values) for name, values in tuning.ranges.items()}
        self._study = optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name="search",
            direction=tuning.direction,
            pruner=_pruner(tuning, max_epochs),
            load_if_exists=True,
        )
        known = len(self._all())
        self._live: dict[int, optuna.trial.Trial] = {}
        self._study.sampler = _sampler(tuning, seed=seed + known)  # not the same draws again when resumed
        if tuning.strategy == "Grid":
            self._enqueue_grid()

    def check_same(self, identity: Mapping[str, Any]) -> None:
        """Remember what is searched. Raises LocalError where the file belongs to another search."""
        before = self._study.user_attrs.get("identity")
        if before is None:
            self._study.set_user_attr("identity", dict(identity))
            return
        differing = sorted(
            key
            for key in {*before, *identity}
            if before.get(key) != json.loads(json.dumps(identity.get(key)))
        )
        if differing:
            key = differing[0]
            raise LocalError(
                f"This folder holds another search: {key} was {before.get(key)!r} and is "
                f"{identity.get(key)!r}. Give another folder, or set {key} back to go on."
            )

    def learn_from(self, parent: Results) -> int:
        """Take another search's completed trials over as knowledge; how many were new and fit this space.

        Raises LocalError where that search had another objective.
        """
        if parent.objective != self._tuning.objective:
            raise LocalError(
                f"{parent.name} looked for {parent.objective}, this search for {self._tuning.objective}."
            )
        known = {trial.user_attrs.get(PARENT) for trial in self._all()}
        taken = 0
        for trial in parent.ranked():
            origin = f"{parent.name}/{trial.number}/{trial.started}"
            if trial.state != "completed" or origin in known or {*trial.parameters} != {*self._space}:
                continue
            taken += self._take_over(trial, origin)
        return taken

    def begun(self) -> list[Fact]:
        """What is known of the trials that were started, in that order."""
        begun = [trial for trial in self._own() if _position(trial)]
        return [_read_fact(trial) for trial in sorted(begun, key=_position)]

    @property
    def count(self) -> int:
        """Of trials, those that are about to start included."""
        return len(self._own())

    def unfinished(self) -> list[Suggestion]:
        """Trials that a killed search left behind, completed where it was killed while choosing values."""
        running = [trial for trial in self._own() if trial.state == TrialState.RUNNING]
        resumed = [self._suggest(optuna.trial.Trial(self._study, trial._trial_id)) for trial in running]
        return [suggestion for suggestion in resumed if not self._is_duplicate(suggestion)]

    def ask(self) -> Suggestion | None:
        """The next values; None when all there are were tried."""
        for duplicates in range(MAX_DUPLICATES):
            if self._is_exhausted():
                return None
            if duplicates == PATIENCE:
                self._study.sampler = optuna.samplers.RandomSampler(seed=len(self._all()))
            suggestion = self._suggest(self._study.ask())
            if not self._is_duplicate(suggestion):
                return suggestion
        return None

    def report(self, number: int, values: Values) -> str:
        """Remember the objective after each epoch; a sentence where the trial should be stopped."""
        known = self._all()[number].intermediate_values
        reason = ""
        for epoch in sorted({*values} - {*known}):
            self._live[number].report(values[epoch], epoch)
            reason = reason or self._judge(number, {at: values[at] for at in values if at <= epoch})
        return reason

    def complete(self, number: int, objective: float) -> None:
        """Ended by itself."""
        self._study.tell(number, objective)

    def stop(self, number: int) -> None:
        """Ended because it was stopped: the last reported value counts. One without any has failed."""
        has_value = bool(self._all()[number].intermediate_values)
        self._study.tell(number, state=TrialState.PRUNED if has_value else TrialState.FAIL)

    def fail(self, number: int, reason: str) -> None:
        """Ended without a score."""
        self._remember(number, REASON, reason)
        self._study.tell(number, state=TrialState.FAIL)

    def begin(self, number: int) -> None:
        """Give a trial its place among those that were run, and the time."""
        if self._fact(number, POSITION) is None:
            self._remember(number, STARTED, round(time.time(), 3))
            self._remember(number, POSITION, 1 + max(map(_position, self._own())))

    def position(self, number: int) -> int:
        """Of a trial that has begun, from 1; of any other the next free one."""
        return int(self._fact(number, POSITION) or 1 + max(map(_position, self._own())))

    def reason(self, number: int) -> str:
        """Why a trial was told to stop, or failed; empty for one that runs on."""
        return str(self._fact(number, REASON) or "")

    def set_reason(self, number: int, reason: str) -> None:
        """Before the trial is stopped."""
        self._remember(number, REASON, reason)

    def add_seconds(self, number: int, seconds: float) -> None:
        """That a trial ran until it ended or was interrupted."""
        self._remember(number, SECONDS, round((self._fact(number, SECONDS) or 0.0) + seconds, 3))

    def _fact(self, number: int, name: str) -> Any:
        return self._all()[number].user_attrs.get(name)

    def _remember(self, number: int, name: str, value: Any) -> None:
        self._live[number].set_user_attr(name, value)

    @property
    def seconds(self) -> float:
        """That the search ran in all, over its interruptions."""
        return float(self._study.user_attrs.get(SECONDS, 0.0))

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._study.set_user_attr(SECONDS, value)

    def _own(self) -> list[FrozenTrial]:
        """Without duplicates and what was learnt from other searches."""
        return [trial for trial in self._all() if _is_own(trial)]

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _judge(self, number: int, values: Values) -> str:
        tuning = self._tuning
        if tuning.strategy == "Hyperband":
            words = f"Hyperband gives its epochs to better trials after epoch {max(values)}"
            return words if self._live[number].should_prune() else ""
        if tuning.early_stopping == "Off":
            return ""
        previous = [trial.intermediate_values for trial in self._own() if trial.number < number]
        return reason_to_stop(values, previous, objective=tuning.objective, is_maximized=tuning.is_maximized)

    def _suggest(self, trial: optuna.trial.Trial) -> Suggestion:
        self._live[trial.number] = trial
        parameters = {name: _choose(trial, name, values) for name, values in self._tuning.ranges.items()}
        return Suggestion(number=trial.number, parameters=parameters)

    def _is_duplicate(self, suggestion: Suggestion) -> bool:
        """Tried before, or being tried: it would end the same, so it is not run."""
        for trial in self._own():
            if trial.number < suggestion.number and trial.params == suggestion.parameters:
                self._remember(suggestion.number, DUPLICATE, trial.number)
                self._study.tell(suggestion.number, state=TrialState.FAIL)
                return True
        return False

    def _is_exhausted(self) -> bool:
        if self._tuning.strategy == "Grid":
            return not any(trial.state == TrialState.WAITING for trial in self._all())
        combinations = self._tuning.combinations
        return combinations is not None and len(self._own()) >= combinations

    def _take_over(self, trial: Trial, origin: str) -> int:
        try:
            known = optuna.trial.create_trial(
                params=dict(trial.parameters),
                distributions=self._space,
                value=trial.objective,
                user_attrs={PARENT: origin},
            )
        except ValueError:  # a value outside this space
            return 0
        self._study.add_trial(known)
        return 1

    def _enqueue_grid(self) -> None:
        choices = {
            name: values.values
            for name, values in self._tuning.ranges.items()
            if isinstance(values, CategoricalRange)
        }
        for combination in itertools.product(*choices.values()):
            self._study.enqueue_trial(dict(zip(choices, combination, strict=True)), skip_if_exists=True)


def _is_own(trial: FrozenTrial) -> bool:
    return trial.state in STATES and DUPLICATE not in trial.user_attrs and PARENT not in trial.user_attrs


def _choose(trial: optuna.trial.Trial, name: str, values: Range) -> Scalar:
    if isinstance(values, CategoricalRange):
        return cast(Scalar, trial.suggest_categorical(name, values.values))
    is_log = values.scale == "logarithmic"
    if isinstance(values, ContinuousRange):
        return trial.suggest_float(name, values.low, values.high, log=is_log)
    return trial.suggest_int(name, values.low, values.high, log=is_log)


def _read_fact(trial: FrozenTrial) -> Fact:
    attributes = trial.user_attrs
    return Fact(
        number=trial.number,
        position=_position(trial),
        state=STATES[trial.state],
        parameters=dict(trial.params),
        objective=trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        reason=attributes.get(REASON, ""),
        seconds=attributes.get(SECONDS, 0.0),
        started=attributes[STARTED],
    )


def _position(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(POSITION, 0))


def _distribution(values: Range) -> BaseDistribution:
    if isinstance(values, CategoricalRange):
        return CategoricalDistribution(values.values)
    is_log = values.scale == "logarithmic"
    if isinstance(values, ContinuousRange):
        return FloatDistribution(values.low, values.high, log=is_log)
    return IntDistribution(values.low, values.high, log=is_log)


def _sampler(tuning: Tuning, *, seed: int) -> optuna.samplers.BaseSampler:
    if tuning.strategy in ("Random", "Grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    startup = max(2, min(MAX_STARTUP, tuning.max_jobs // STARTUP_SHARE))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def _pruner(tuning: Tuning, max_epochs: int) -> optuna.pruners.BasePruner:
    if tuning.strategy == "Hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max_epochs)
    return optuna.pruners.NopPruner()
