"""Which recorded values a rule looks at, and what it says about a step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from training.debugging.rules.parameters import RuleError
from training.debugging.series import TRAIN, Predictions, Series, Step, Tensors

COLLECTIONS = ("weights", "biases", "gradients", "updates", "activations", "inputs")
Dated = TypeVar("Dated", Step, Predictions)
COOLED_DOWN = 0.1  # of the peak learning rate: below it a schedule means the network to rest
Reductions = dict[str, float]


def read_tensors(
    series: Series, *, collection_names: str | None, tensor_regex: str | None, default: str
) -> Iterator[tuple[int, str, Reductions]]:
    """(step, name, reductions) in the order recorded: of the collections and of the names that match.

    The union where both are given, as documented; `default` lists collections for when none is. Raises
    RuleError for a collection that is never recorded or a regex that is none.
    """
    names = collection_names or ("" if tensor_regex else default)
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    unknown = sorted(wanted - {*COLLECTIONS, "losses"})
    if unknown:
        raise RuleError(
            f"collection_names={unknown[0]!r} is not recorded; there are {', '.join(COLLECTIONS)}."
        )
    matches = compile_regex(tensor_regex)
    for record in series.tensors:
        for name, reductions in record.values.items():
            if record.collection in wanted or (matches and matches.match(name)):
                yield record.step, f"{record.collection}/{name}", reductions


def without_repeats(series: Series) -> Series:
    """A resumed job records steps after its checkpoint twice: the later ones count."""
    return Series(
        steps=_keep_last(series.steps),
        tensors=_keep_last_tensors(series.tensors),
        predictions=_keep_last(series.predictions),
        system=series.system,
        facts=series.facts,
    )


def compile_regex(text: str | None) -> re.Pattern[str] | None:
    """From the start of a name, ignoring case: the documented defaults write relu where torch has ReLU."""
    if not text:
        return None
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise RuleError(f"tensor_regex={text!r} is not a regular expression ({error}).") from error


def frozen_names(series: Series) -> frozenset[str]:
    """Parameters that do not learn, because the job said so."""
    return frozenset(name for fact in series.facts if fact.name == "frozen" for name in fact.value)


def read_fact(series: Series, name: str) -> Any:
    """The latest value of a fact; None where it was never said."""
    return next((fact.value for fact in reversed(series.facts) if fact.name == name), None)


def read_ending(series: Series, name: str) -> Any:
    """The fact `ended` or `failure` of the last start; what ended an earlier, resumed one is past."""
    last = max((step.time for step in series.steps), default=0.0)
    return next((f.value for f in reversed(series.facts) if f.name == name and f.time >= last), None)


def train_steps(series: Series) -> list[Step]:
    """The optimizer steps."""
    return [step for step in series.steps if step.mode == TRAIN]


def eval_steps(series: Series) -> list[Step]:
    """The passes over the validation split."""
    return [step for step in series.steps if step.mode != TRAIN]


def _keep_last(records: list[Dated]) -> list[Dated]:
    latest = {(record.mode, record.step): record for record in records}
    return list(latest.values()) if len(latest) < len(records) else records


def _keep_last_tensors(records: list[Tensors]) -> list[Tensors]:
    latest = {(record.mode, record.step, record.collection): record for record in records}
    return list(latest.values()) if len(latest) < len(records) else records


def number(value: float) -> str:
    """Three significant digits; thousands in full."""
    return f"{value:,.0f}".replace(",", " ") if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def share(value: float) -> str:
    """0.414 -> '41 %'."""
    return f"{100 * value:.0f} %" if value >= 0.1 or not value else f"{100 * value:.2g} %"
