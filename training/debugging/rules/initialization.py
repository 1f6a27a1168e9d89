"""The first steps: PoorWeightInitialization."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import Reductions, compile_regex, number, read_fact, train_steps
from training.debugging.series import TRAIN, Series

RELU_INPUT = ".*relu_input"  # documented default
RELUS = ("ReLU", "ReLU6", "LeakyReLU", "SiLU", "GELU", "Hardswish")
NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "SyncBatchNorm")
RISES_BY = 2.0  # standard errors, for a loss that is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class PoorWeightInitialization(Rule):
    """Fires when within the first `steps` steps something says that the initial weights are bad.

    - The variances of the activations of two layers that follow each other differ by more than `threshold`
      times (the default regex means what comes out of every ReLU and its kin), or a weight matrix is
      constant. - The 5th to 95th percentile of a weight's gradient spans less than `distribution_range` of
      its mean absolute value: nearly all of it is zero. (An absolute span, as documented, says nothing: it
      halves with every doubling of the layer.)
    - The mean loss of `patience` steps is above that of the first `patience` by more than its noise, or the
      loss does not move at all. Steps are counted from the end of the warm-up.
    """

    activation_inputs_regex: str = RELU_INPUT
    threshold: float = 10.0
    distribution_range: float = 0.001
    patience: int = 5
    steps: int = 10

    def judge(self, series: Series) -> Verdict:
        if not train_steps(series):
            return self.not_applicable("No step has ended yet.")
        records = [record for record in series.tensors if record.mode == TRAIN and record.step < self.steps]
        for record in records:
            layers = read_fact(series, "layers") or {}
            verdict = {
                "activations": self._judge_activations,
                "weights": self._judge_weights,
                "gradients": self._judge_gradients,
            }.get(record.collection, _say_nothing)(record.step, record.values, layers)
            if verdict:
                return verdict
        return self._judge_losses(series)

    def _judge_activations(
        self, step: int, values: dict[str, Reductions], layers: dict[str, str]
    ) -> Verdict | None:
        pattern = compile_regex(self.activation_inputs_regex)
        by_class = self.activation_inputs_regex == RELU_INPUT
        variances = {
            name: found["variance"]
            for name, found in values.items()
            if "variance" in found
            and (layers.get(name.rpartition("_output_")[0]) in RELUS if by_class else _matches(pattern, name))
        }
        names = list(variances)
        jumps = [
            (_ratio(variances[before], variances[after]), before, after)
            for before, after in itertools.pairwise(names)
        ]
        worst = max(jumps, default=(1.0, "", ""))
        if worst[0] <= self.threshold:
            return None
        return self._issue(
            step,
            f"The variance of activations changes {number(worst[0])} times from {worst[1]} to {worst[2]}",
            {"layer": list(range(len(names))), "variance of activations": list(variances.values())},
        )

    def _judge_weights(
        self, step: int, values: dict[str, Reductions], layers: dict[str, str]
    ) -> Verdict | None:
        for name, found in values.items():
            kind = layers.get(name.rpartition(".")[0], "")
            is_matrix = name.endswith("weight") and not kind.startswith(NORMS) and found.get("count", 0) > 1
            if is_matrix and kind and found.get("variance") == 0.0 and step == 0:
                return self._issue(step, f"All values of {name} are the same", {})
        return None

    def _judge_gradients(
        self, step: int, values: dict[str, Reductions], layers: dict[str, str]
    ) -> Verdict | None:
        spans = {}
        for name, found in values.items():
            kind = layers.get(name.removeprefix("gradient/").rpartition(".")[0], "")
            if name.endswith("weight") and not kind.startswith(NORMS) and "p95" in found:
                spans[name] = (found["p95"] - found["p5"]) / max(found.get("mean_abs", 0.0), 1e-30)
        if not spans:
            return None
        name, low = min(spans.items(), key=lambda item: item[1])
        if low >= self.distribution_range:
            return None
        return self._issue(
            step,
            f"9 of 10 gradients of {name} are the same (their span is {number(low)} of the mean |gradient|, "
            f"distribution_range {number(self.distribution_range)})",
            {"layer": list(range(len(spans))), "span of gradients": list(spans.values())},
        )

    def _judge_losses(self, series: Series) -> Verdict:
        steps = train_steps(series)
        peak = max(step.learning_rate for step in steps)
        warm = next((n for n, step in enumerate(steps) if step.learning_rate >= 0.99 * peak), 0)
        first = steps[warm : warm + self.steps]
        losses = np.array([step.loss for step in first])
        evidence: Evidence = {"step": [step.step for step in first], "loss": losses.tolist()}
        early, late = losses[: self.patience], losses[self.patience :][-self.patience :]
        if len(losses) < self.steps or not np.isfinite(losses).all():
            return self.fine("Variances and gradients of the first steps are in order.", evidence)
        error = math.sqrt((early.var() + late.var()) / max(len(late), 1))
        if np.ptp(losses) < 1e-6 * abs(losses[0]) or late.mean() > early.mean() + RISES_BY * error:
            return self._issue(
                first[-1].step,
                f"The loss does not decrease in the first {self.steps} steps after the warm-up: from "
                f"{number(float(early.mean()))} to {number(float(late.mean()))}",
                evidence,
            )
        return self.fine(
            f"Variances and gradients of the first steps are in order, and the loss went from "
            f"{number(float(early.mean()))} to {number(float(late.mean()))}.",
            evidence,
        )

    def _issue(self, step: int, words: str, evidence: Evidence) -> Verdict:
        return self.issue(
            step=step,
            summary=f"{words} (step {step}).",
            advice="Initialise with He's scheme (kaiming_normal_), use batch norm, or start from "
            "pretrained weights "
            "(pretrained=true). If the loss rises although the weights are good, divide learning_rate "
            "by 10 or "
            "lengthen warmup_epochs.",
            evidence=evidence,
        )


def _say_nothing(step: int, values: dict[str, Reductions], layers: dict[str, str]) -> Verdict | None:
    return None


def _matches(pattern: object, name: str) -> bool:
    return bool(pattern and pattern.match(name))  # type: ignore[attr-defined]


def _ratio(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return high / low if low > 0 else (math.inf if high > 0 else 1.0)
