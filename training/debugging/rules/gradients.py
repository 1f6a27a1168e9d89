"""Gradients and what they do to the weights: VanishingGradient, WeightUpdateRatio."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import COOLED_DOWN, number, train_steps
from training.debugging.series import TRAIN, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class VanishingGradient(Rule):
    """Fires when the mean absolute gradient of a trained weight is below `threshold`.

    Biases are left out: one before a batch norm has no gradient in the best of networks.
    """

    threshold: float = 1e-7

    def judge(self, series: Series) -> Verdict:
        means = {
            step: {name: mean for name, mean in found.items() if not name.endswith(".bias")}
            for step, found in read_means(series, "gradients").items()
        }
        if not means:
            return self.not_applicable("No gradients were recorded.")
        lows = {step: min(values.items(), key=lambda item: item[1]) for step, values in means.items()}
        evidence: Evidence = {
            "step": list(lows),
            "smallest mean |gradient|": [low for _, low in lows.values()],
            "threshold": self.threshold,
        }
        for step, (_, low) in lows.items():
            if low < self.threshold:
                return self._issue(step, means[step], evidence)
        name, low = min(lows.values(), key=lambda item: item[1])
        return self.fine(
            f"The smallest mean |gradient| was {number(low)} ({name}), above {number(self.threshold)}.",
            evidence,
        )

    def _issue(self, step: int, means: dict[str, float], evidence: Evidence) -> Verdict:
        small = {name: mean for name, mean in means.items() if mean < self.threshold}
        name, low = min(small.items(), key=lambda item: item[1])
        return self.issue(
            step=step,
            summary=f"{len(small)} of {len(means)} trained tensors have a mean |gradient| below "
            f"{number(self.threshold)} at step {step}: {name} has {number(low)}.",
            advice="These layers do not learn. Use batch norm, ReLU instead of sigmoid or tanh, residual "
            "connections or He initialisation; an architecture such as resnet18 has all four. A network that "
            "has learnt everything (training accuracy 100 %) also looks like this: then stop earlier.",
            evidence=evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightUpdateRatio(Rule):
    """Fires when a weight's mean absolute update over its mean absolute value (+ epsilon) leaves the bounds.

    The update is that of one optimizer step; with `num_steps`, the mean over that many recorded steps. Biases
    are left out: they start at zero.
    """

    num_steps: int | None = None
    large_threshold: float = 10.0
    small_threshold: float = 1e-8
    epsilon: float = 1e-9

    def judge(self, series: Series) -> Verdict:
        ratios = self._ratios(series)
        if not ratios:
            return self.not_applicable("No updates were recorded.")
        evidence: Evidence = {
            "step": list(ratios),
            "largest ratio": [max(values.values()) for values in ratios.values()],
            "smallest ratio": [min(values.values()) for values in ratios.values()],
            "large_threshold": self.large_threshold,
            "small_threshold": self.small_threshold,
        }
        for step, values in ratios.items():
            high, low = max(values.items(), key=_value), min(values.items(), key=_value)
            if high[1] > self.large_threshold or math.isnan(high[1]):
                return self._large(step, *high, evidence)
            if low[1] < self.small_threshold:
                return self._small(step, *low, evidence)
        return self.fine(
            f"Updates were {number(min(min(v.values()) for v in ratios.values()))} to "
            f"{number(max(max(v.values()) for v in ratios.values()))} of their weights.",
            evidence,
        )

    def _ratios(self, series: Series) -> dict[int, dict[str, float]]:
        """Step -> tensor -> ratio, where both are recorded and the schedule does not rest."""
        weights, updates = read_means(series, "weights"), read_means(series, "updates")
        rates = {step.step: step.learning_rate for step in train_steps(series)}
        resting = {step for step, rate in rates.items() if rate <= COOLED_DOWN * max(rates.values())}
        window: dict[str, list[float]] = {}
        ratios: dict[int, dict[str, float]] = {}
        for step, means in updates.items():
            if step in resting:
                continue
            for name, mean in means.items():
                if name in weights.get(step, {}):
                    recent = window.setdefault(name, [])
                    recent.append(mean / (weights[step][name] + self.epsilon))
                    del recent[: -(self.num_steps or 1)]
            complete = {n: sum(r) / len(r) for n, r in window.items() if len(r) == (self.num_steps or 1)}
            if complete:
                ratios[step] = complete
        return ratios

    def _large(self, step: int, name: str, ratio: float, evidence: Evidence) -> Verdict:
        return self.issue(
            step=step,
            summary=f"At step {step} one update of {name} was {number(ratio)} times its weights "
            f"(large_threshold {number(self.large_threshold)}).",
            advice="Each step throws the weights away. Divide learning_rate by 10 until the ratio is near "
            "0.001, or lengthen warmup_epochs.",
            evidence=evidence,
        )

    def _small(self, step: int, name: str, ratio: float, evidence: Evidence) -> Verdict:
        return self.issue(
            step=step,
            summary=f"At step {step} one update of {name} was {number(ratio)} of its weights "
            f"(small_threshold {number(self.small_threshold)}).",
            advice="The layer stands still. Raise learning_rate until the ratio is near 0.001, and check "
            "that gradients reach this layer.",
            evidence=evidence,
        )


def read_means(series: Series, collection: str) -> dict[int, dict[str, float]]:
    """Step -> tensor -> mean of absolute values, of one collection in training."""
    means: dict[int, dict[str, float]] = {}
    for record in series.tensors:
        if record.collection == collection and record.mode == TRAIN:
            values = {name: found["mean_abs"] for name, found in record.values.items() if "mean_abs" in found}
            if values:
                means.setdefault(record.step, {}).update(values)
    return means


def _value(item: tuple[str, float]) -> float:
    return item[1]
