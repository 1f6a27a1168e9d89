"""Any tensors: ExplodingTensor, AllZero, UnchangedTensor, TensorVariance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import (
    Reductions,
    frozen_names,
    number,
    read_tensors,
    share,
)
from training.debugging.series import Series

LEARNING = "weights,biases,gradients"
COMPARED = ("mean", "mean_abs", "variance", "min", "max", "l2")  # of a tensor that may have changed


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplodingTensor(Rule):
    """Fires for any NaN, and unless `only_nan` any infinity, in weights, gradients, activations or losses."""

    collection_names: str | None = None
    tensor_regex: str | None = None
    only_nan: bool = False

    def judge(self, series: Series) -> Verdict:
        tensors = list(
            read_tensors(
                series,
                collection_names=self.collection_names,
                tensor_regex=self.tensor_regex,
                default=f"{LEARNING},activations",
            )
        )
        found = [self._first_loss(series), self._first_tensor(tensors)]
        first = min((item for item in found if item), default=None)
        evidence = _largest_values(tensors)
        if first is not None:
            step, what = first
            return self.issue(
                step=step,
                summary=f"{what} at step {step}.",
                advice="The training has diverged. Divide learning_rate by 10 or lengthen "
                "warmup_epochs; if it "
                "happens in bf16 only, set precision=fp32. Nothing after this step is worth keeping.",
                evidence=evidence,
            )
        if not tensors and not series.steps:
            return self.not_applicable("Nothing was recorded yet.")
        return self.fine(f"All of {len(tensors)} recorded tensors and all losses are finite.", evidence)

    def _first_loss(self, series: Series) -> tuple[int, str] | None:
        for step in series.steps:
            if math.isnan(step.loss) or (math.isinf(step.loss) and not self.only_nan):
                return step.step, f"The loss became {step.loss}"
        return None

    def _first_tensor(self, tensors: Iterable[tuple[int, str, Reductions]]) -> tuple[int, str] | None:
        for step, name, found in tensors:
            bad = found.get("nan", 0.0) if self.only_nan else found.get("non_finite", found.get("nan", 0.0))
            if bad:
                kind = "NaN" if self.only_nan else "NaN or infinite"
                return step, f"{bad:.0f} values of {name} are {kind}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllZero(Rule):
    """Fires when `threshold` percent of a tensor's values are zero: weights and gradients by default."""

    collection_names: str | None = None
    tensor_regex: str | None = None
    threshold: float = 100.0

    def judge(self, series: Series) -> Verdict:
        tensors = [
            (step, name, found["zeros"])
            for step, name, found in read_tensors(
                series,
                collection_names=self.collection_names,
                tensor_regex=self.tensor_regex,
                default="weights,gradients",
            )
            if "zeros" in found
        ]
        if not tensors:
            return self.not_applicable("No such tensor was recorded.")
        evidence = _highest_by_step(tensors, "largest share of zeros") | {"threshold": self.threshold / 100}
        for step, name, zeros in tensors:
            if 100 * zeros >= self.threshold:
                return self.issue(
                    step=step,
                    summary=f"{share(zeros)} of {name} is zero at step {step}.",
                    advice="Nothing is learnt there: give the layer a random initialisation, and see "
                    "that its "
                    "inputs are not all zero (dead ReLUs, black images).",
                    evidence=evidence,
                )
        step, name, zeros = max(tensors, key=lambda item: item[2])
        return self.fine(f"At most {share(zeros)} of a tensor was zero ({name}, step {step}).", evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedTensor(Rule):
    """Fires when a tensor stays within the tolerances over `num_steps` recorded steps: weights by default.

    Compared are a tensor's recorded reductions by numpy.allclose, since values are not kept. Parameters that
    are frozen on purpose are left out.
    """

    collection_names: str | None = None
    tensor_regex: str | None = None
    num_steps: int = 3
    rtol: float = 1e-05
    atol: float = 1e-08
    equal_nan: bool = False

    def judge(self, series: Series) -> Verdict:
        frozen = frozen_names(series)
        history: dict[str, list[list[float]]] = {}
        stuck: dict[str, int] = {}
        for step, name, found in read_tensors(
            series,
            collection_names=self.collection_names,
            tensor_regex=self.tensor_regex,
            default="weights",
        ):
            if name.split("/", 1)[1] in frozen:
                continue
            values = history.setdefault(name, [])
            values.append([found.get(key, 0.0) for key in COMPARED])
            if name not in stuck and self._is_unchanged(values):
                stuck[name] = step
        if not history:
            return self.not_applicable("No such tensor was recorded.")
        if stuck:
            return self._issue(stuck, history)
        return self.fine(f"All of {len(history)} tensors kept changing.")

    def _is_unchanged(self, values: list[list[float]]) -> bool:
        recent = values[-self.num_steps :]
        return len(recent) == self.num_steps and all(
            np.allclose(recent[0], row, rtol=self.rtol, atol=self.atol, equal_nan=self.equal_nan)
            for row in recent[1:]
        )

    def _issue(self, stuck: dict[str, int], history: dict[str, list[list[float]]]) -> Verdict:
        name, step = min(stuck.items(), key=lambda item: item[1])
        norms = {key: [row[COMPARED.index("l2")] for row in history[key]] for key in list(stuck)[:3]}
        moving = next((key for key in history if key not in stuck), None)
        if moving:
            norms[f"{moving} (changes)"] = [row[COMPARED.index("l2")] for row in history[moving]]
        length = max(map(len, norms.values()))
        return self.issue(
            step=step,
            summary=f"{len(stuck)} of {len(history)} tensors did not change over {self.num_steps} recorded "
            f"steps, {name} first (step {step}).",
            advice="No gradient reaches them or the optimizer does not know them: look for a detach(), a "
            "requires_grad=False or a layer that forward() leaves out. If it is meant, freeze_backbone=true "
            "says so and saves the time of their gradients.",
            evidence={
                "recorded step": list(range(length)),
                **{key: norm + [math.nan] * (length - len(norm)) for key, norm in norms.items()},
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorVariance(Rule):
    """Fires when a variance is above `max_threshold` or below `min_threshold`: weights by default."""

    collection_names: str | None = None
    tensor_regex: str | None = None
    max_threshold: float | None = None
    min_threshold: float | None = None

    def judge(self, series: Series) -> Verdict:
        if self.max_threshold is None and self.min_threshold is None:
            return self.not_applicable("Neither max_threshold nor min_threshold is given.")
        low = -math.inf if self.min_threshold is None else self.min_threshold
        high = math.inf if self.max_threshold is None else self.max_threshold
        tensors = [
            (step, name, found["variance"])
            for step, name, found in read_tensors(
                series,
                collection_names=self.collection_names,
                tensor_regex=self.tensor_regex,
                default="weights",
            )
            if "variance" in found
        ]
        if not tensors:
            return self.not_applicable("No such tensor was recorded.")
        evidence = _highest_by_step(tensors, "largest variance") | {
            name: value for name, value in (("min", low), ("max", high)) if math.isfinite(value)
        }
        for step, name, variance in tensors:
            if not low <= variance <= high:
                return self.issue(
                    step=step,
                    summary=f"The variance of {name} is {number(variance)} at step {step}, outside "
                    f"{number(low)} to {number(high)}.",
                    advice="A variance that grows from step to step wants a lower learning_rate or more "
                    "weight_decay; one near zero wants a random initialisation.",
                    evidence=evidence,
                )
        return self.fine(f"All variances lie in {number(low)} to {number(high)}.", evidence)


def _highest_by_step(tensors: list[tuple[int, str, float]], label: str) -> dict[str, list[float] | float]:
    highest: dict[int, float] = {}
    for step, _, value in tensors:
        highest[step] = max(value, highest.get(step, value))
    return {"step": [float(step) for step in highest], label: list(highest.values())}


def _largest_values(tensors: list[tuple[int, str, Reductions]]) -> Evidence:
    """The largest absolute value of any tensor, by step: how it grew until it burst."""
    peaks = [
        (step, name, max(abs(found["min"]), abs(found["max"])))
        for step, name, found in tensors
        if "min" in found and "max" in found
    ]
    return _highest_by_step(peaks, "largest |value| of any tensor") if peaks else {}
