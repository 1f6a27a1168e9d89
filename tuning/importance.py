"""How much of the differences between trials each hyperparameter explains: Optuna's evaluators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuning.results import Results

FEWEST_TRIALS = 4  # below, any split explains everything


def estimate_importances(results: Results) -> dict[str, float]:
    """Hyperparameter -> share of 1, largest first; empty where too few trials completed or all are alike.

    By functional ANOVA over a random forest (Hutter et al. 2014), as `optuna.importance` has it.
    """
    trials = [trial for trial in results.ranked() if trial.state == "completed"]
    values = {trial.objective for trial in trials}
    space = {name: _distribution(kind) for name, kind in results.ranges.items()}
    space = {name: kind for name, kind in space.items() if not kind.single()}
    if len(trials) < FEWEST_TRIALS or len(values) < 2 or not space:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=results.direction)
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: trial.parameters[name] for name in space},
                distributions=space,
                value=trial.objective,
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def _distribution(values: Mapping[str, Any]) -> BaseDistribution:
    if values["type"] == "categorical":
        return CategoricalDistribution(tuple(values["values"]))
    kind = FloatDistribution if values["type"] == "continuous" else IntDistribution
    return kind(values["low"], values["high"], log=values["scale"] == "logarithmic")
