"""SageMaker Debugger's rules, by their documented names and parameters, as pure functions of a series."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from training.debugging.rules.gradients import VanishingGradient, WeightUpdateRatio
from training.debugging.rules.losses import LossNotDecreasing, Overfit, Overtraining
from training.debugging.rules.parameters import build_rule, read_recipe_rules, read_rule_configuration
from training.debugging.rules.rule import Rule, RuleError, RuleSettings, Verdict
from training.debugging.series import Series

__all__ = [
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

RULES: dict[str, type[Rule]] = {
    kind.__name__: kind
    for kind in (
        VanishingGradient,
        WeightUpdateRatio,
        Overfit,
        Overtraining,
        LossNotDecreasing,
    )
}


def check_rules(configured: Iterable[RuleSettings]) -> None:
    """Before a job costs anything. Raises RuleError for an unknown rule or a parameter it does not have."""
    for settings in configured:
        build_rule(settings, RULES)


def evaluate(series: Series, configured: Iterable[RuleSettings]) -> list[Verdict]:
    """One verdict for each rule, in order. Raises RuleError as `check_rules` does.

    A rule that fails over what was recorded has the status Error: it must not end a training.
    """
    return [_judge(build_rule(settings, RULES), series) for settings in configured]


def _judge(rule: Rule, series: Series) -> Verdict:
    try:
        return rule.judge(series)
    except RuleError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        name = type(rule).__name__
        logger.exception("rule=%s could not judge the series", name)
        return Verdict(
            rule=name, status="Error", summary=f"The rule failed: {type(error).__name__}: {error}."
        )
