"""All profiler rules in one: ProfilerReport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from training.debugging.rules.parameters import SERVICE_PARAMETERS, RuleError, name_nearest
from training.debugging.rules.phases import Dataloader, DataWait, OverallFrameworkMetrics
from training.debugging.rules.processors import (
    BatchSize,
    CPUBottleneck,
    GPUMemoryIncrease,
    IOBottleneck,
    LoadBalancing,
    LowGPUUtilization,
    OverallSystemUsage,
)
from training.debugging.rules.progress import MaxInitializationTime, StepOutlier
from training.debugging.rules.rule import Rule, Verdict
from training.debugging.series import Series

PROFILER_RULES: dict[str, type[Rule]] = {
    kind.__name__: kind
    for kind in (
        LowGPUUtilization,
        BatchSize,
        CPUBottleneck,
        IOBottleneck,
        GPUMemoryIncrease,
        LoadBalancing,
        MaxInitializationTime,
        StepOutlier,
        Dataloader,
        DataWait,
        OverallSystemUsage,
        OverallFrameworkMetrics,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilerReport(Rule):
    """Runs every profiler rule, with parameters as `<Rule>_<parameter>`; fires when one of them does."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def build(cls, parameters: Mapping[str, str]) -> Self:
        by_rule: dict[str, dict[str, str]] = {name: {} for name in PROFILER_RULES}
        for expanded, text in parameters.items():
            rule, _, name = expanded.partition("_")
            if rule in by_rule:
                by_rule[rule][name] = text
            elif expanded not in SERVICE_PARAMETERS:
                known = [f"{rule}_<parameter>" for rule in PROFILER_RULES]
                raise RuleError(
                    f"ProfilerReport has no parameter {expanded!r}. {name_nearest(expanded, known)}"
                )
        return cls(rules=tuple(PROFILER_RULES[name].build(texts) for name, texts in by_rule.items()))

    def verdicts(self, series: Series) -> list[Verdict]:
        """Of each profiler rule."""
        return [rule.judge(series) for rule in self.rules]

    def judge(self, series: Series) -> Verdict:
        verdicts = self.verdicts(series)
        fired = [verdict for verdict in verdicts if verdict.fired]
        silent = [verdict for verdict in verdicts if verdict.status == "NotApplicable"]
        words = f"{len(fired)} of {len(verdicts)} profiler rules fired, {len(silent)} had nothing to look at"
        if not fired:
            return self.fine(f"{words}.") if len(silent) < len(verdicts) else self.not_applicable(f"{words}.")
        return self.issue(
            step=fired[0].step,
            summary=f"{words}: {', '.join(verdict.rule for verdict in fired)}. {fired[0].summary}",
            advice=fired[0].advice,
            evidence=fired[0].evidence,
        )
