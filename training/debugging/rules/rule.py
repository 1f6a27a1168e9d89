"""What a rule is: documented parameters, and a judgement of a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from training.debugging.rules.parameters import parse_parameters
from training.debugging.series import Series

Status = Literal["IssuesFound", "NoIssuesFound", "NotApplicable", "Error"]

# Something to plot: the first entry is the x axis, others are curves (NaN where there is no point),
# and a number is a line across.
Evidence = Mapping[str, Sequence[float] | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule makes of a series."""

    rule: str
    status: Status
    step: int | None = None  # at which it fired
    summary: str  # one sentence with the numbers
    advice: str = ""  # what to do, and what that should bring
    evidence: Evidence = field(default_factory=dict)

    @property
    def fired(self) -> bool:
        """The rule's condition was met."""
        return self.status == "IssuesFound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule's documented parameters are its fields, with their documented defaults."""

    @classmethod
    def build(cls, parameters: Mapping[str, str]) -> Self:
        """From strings. Raises RuleError for a parameter it does not have or cannot read."""
        return cls(**parse_parameters(cls, parameters))

    def judge(self, series: Series) -> Verdict:
        """Pure: the same series gets the same verdict, during the training and after it."""
        raise NotImplementedError

    def issue(
        self, *, step: int | None = None, summary: str, advice: str, evidence: Evidence | None = None
    ) -> Verdict:
        """The condition was met."""
        return Verdict(
            rule=type(self).__name__,
            status="IssuesFound",
            step=step,
            summary=summary,
            advice=advice,
            evidence=evidence or {},
        )

    def fine(self, summary: str, evidence: Evidence | None = None) -> Verdict:
        """It was looked at, and the condition was not met."""
        return Verdict(
            rule=type(self).__name__, status="NoIssuesFound", summary=summary, evidence=evidence or {}
        )

    def not_applicable(self, summary: str) -> Verdict:
        """There was nothing to look at; `summary` says what is missing."""
        return Verdict(rule=type(self).__name__, status="NotApplicable", summary=summary)
