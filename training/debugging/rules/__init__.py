"""SageMaker Debugger's rules, by their documented names and parameters, as pure functions of a series."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from training.debugging.rules.activations import DeadRelu, SaturatedActivation
from training.debugging.rules.classes import ClassImbalance, Confusion
from training.debugging.rules.gradients import VanishingGradient, WeightUpdateRatio
from training.debugging.rules.images import CheckInputImages
from training.debugging.rules.initialization import PoorWeightInitialization
from training.debugging.rules.losses import LossNotDecreasing, Overfit, Overtraining
from training.debugging.rules.parameters import RuleError, name_nearest
from training.debugging.rules.profiler_report import PROFILER_RULES, ProfilerReport
from training.debugging.rules.progress import StalledTrainingRule
from training.debugging.rules.rule import Rule, Verdict
from training.debugging.rules.selection import without_repeats
from training.debugging.rules.settings import (
    ACTIONS,
    RuleSettings,
    read_recipe_rules,
    read_rule_configuration,
)
from training.debugging.rules.tensors import AllZero, ExplodingTensor, TensorVariance, UnchangedTensor
from training.debugging.series import Series

__all__ = [
    "MODEL_RULES",
    "PROFILER_RULES",
    "RULES",
    "Rule",
    "RuleError",
    "RuleSettings",
    "Verdict",
    "check_rules",
    "evaluate",
    "read_recipe_rules",
    "read_rule_configuration",
]

logger = logging.getLogger(__name__)

MODEL_RULES: dict[str, type[Rule]] = {
    kind.__name__: kind
    for kind in (
        VanishingGradient,
        ExplodingTensor,
        PoorWeightInitialization,
        DeadRelu,
        SaturatedActivation,
        WeightUpdateRatio,
        AllZero,
        UnchangedTensor,
        TensorVariance,
        Overfit,
        Overtraining,
        LossNotDecreasing,
        ClassImbalance,
        Confusion,
        CheckInputImages,
        StalledTrainingRule,
    )
}
RULES: dict[str, type[Rule]] = MODEL_RULES | PROFILER_RULES | {"ProfilerReport": ProfilerReport}


def check_rules(configured: Iterable[RuleSettings]) -> None:
    """Before a job costs anything. Raises RuleError for an unknown rule, action, parameter or value."""
    for settings in configured:
        _build(settings).judge(Series())  # regexes and collections are read when a rule looks


def evaluate(series: Series, configured: Iterable[RuleSettings]) -> list[Verdict]:
    """One verdict for each rule, in order. Raises RuleError for an unknown rule, action or parameter.

    A rule that fails over what was recorded has the status Error: it must not end a training.
    """
    series = without_repeats(series)
    return [_judge(_build(settings), series) for settings in configured]


def _build(settings: RuleSettings) -> Rule:
    if settings.name not in RULES:
        raise RuleError(f"Unknown rule {settings.name!r}. {name_nearest(settings.name, RULES)}")
    if settings.action not in ACTIONS:
        raise RuleError(f"{settings.name}: action={settings.action!r} is not one of {', '.join(ACTIONS)}.")
    return RULES[settings.name].build(settings.parameters)


def _judge(rule: Rule, series: Series) -> Verdict:
    try:
        return rule.judge(series)
    except RuleError as error:  # such as a number of classes that is not the data's
        return Verdict(rule=type(rule).__name__, status="Error", summary=str(error))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        name = type(rule).__name__
        logger.exception("rule=%s could not judge the series", name)
        return Verdict(
            rule=name, status="Error", summary=f"The rule failed: {type(error).__name__}: {error}."
        )
