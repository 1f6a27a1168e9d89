"""Units that have fallen silent: DeadRelu, SaturatedActivation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import Reductions, compile_regex, number, read_fact, share
from training.debugging.series import INACTIVE_PERCENTS, Series

RELU_OUTPUT, SATURATING_INPUT = ".*relu_output", ".*tanh_input|.*sigmoid_input"  # documented defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRelu(Rule):
    """Fires when over `threshold_layer` percent of a layer's units are nearly never active.

    That is, in less than `threshold_inactivity` percent of places and images. The default regex means every
    ReLU and ReLU6 by class, however its module is called.
    """

    tensor_regex: str = RELU_OUTPUT
    threshold_inactivity: float = 1.0
    threshold_layer: float = 50.0

    def judge(self, series: Series) -> Verdict:
        classes = ("ReLU", "ReLU6") if self.tensor_regex == RELU_OUTPUT else ()
        dead = [
            (step, name, inactive_share(found, self.threshold_inactivity))
            for step, name, found in read_activations(
                series, side="_output_", classes=classes, regex=self.tensor_regex
            )
        ]
        return judge_inactive(
            self,
            dead,
            limit=self.threshold_layer / 100,
            nothing="No ReLU module's output was recorded (torch.relu called as a function is not seen).",
            what=f"are active in less than {number(self.threshold_inactivity)} % of places and images",
            advice="Dead units get no gradient and stay dead. Divide learning_rate by 10, lengthen "
            "warmup_epochs, "
            "or train an architecture with batch norm; LeakyReLU or SiLU do not die.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatedActivation(Rule):
    """Fires when over `threshold_layer` percent of a layer's units take inputs where the function is flat.

    A unit counts when less than `threshold_inactivity` percent of its inputs lie between the thresholds. The
    default regex means every Tanh and Sigmoid by class. The recorder applies the documented thresholds.
    """

    collection_names: str | None = None  # accepted; there is one collection of activations
    tensor_regex: str = SATURATING_INPUT
    threshold_tanh_min: float = -9.4999
    threshold_tanh_max: float = 9.4999
    threshold_sigmoid_min: float = -23.0
    threshold_sigmoid_max: float = 16.99999
    threshold_inactivity: float = 1.0
    threshold_layer: float = 50.0

    def judge(self, series: Series) -> Verdict:
        classes = ("Tanh", "Sigmoid") if self.tensor_regex == SATURATING_INPUT else ()
        wanted = {
            (self.threshold_tanh_min, self.threshold_tanh_max),
            (self.threshold_sigmoid_min, self.threshold_sigmoid_max),
        }
        saturated = []
        for step, name, found in read_activations(
            series, side="_input_", classes=classes, regex=self.tensor_regex
        ):
            bounds = found.get("low"), found.get("high")
            if None not in bounds and not any(np.allclose(bounds, pair) for pair in wanted):  # type: ignore[arg-type]
                return self.not_applicable(
                    f"{name} was recorded with the thresholds {bounds[0]} and {bounds[1]}; others "
                    f"cannot be applied."
                )
            saturated.append((step, name, inactive_share(found, self.threshold_inactivity)))
        return judge_inactive(
            self,
            saturated,
            limit=self.threshold_layer / 100,
            nothing="There is no Tanh or Sigmoid module in this network.",
            what="take inputs where the function is flat",
            advice="No gradient passes a saturated unit. Put batch norm before the activation, divide "
            "learning_rate "
            "by 10, scale the initial weights down, or use ReLU.",
        )


def read_activations(
    series: Series, *, side: str, classes: tuple[str, ...], regex: str
) -> Iterator[tuple[int, str, Reductions]]:
    """What goes in or comes out of the layers of some classes, or of those whose name matches."""
    layers = read_fact(series, "layers") or {}
    pattern = compile_regex(regex)
    for record in series.tensors:
        if record.collection != "activations":
            continue
        for name, found in record.values.items():
            module = name.rpartition(side)[0]
            fits = layers.get(module) in classes if classes and module in layers else None
            if fits is None:
                fits = bool(pattern and pattern.match(name))
            if module and fits:
                yield record.step, name, found


def inactive_share(found: Reductions, threshold_percent: float) -> float:
    """Units that are active less than `threshold_percent` of the time, 0-1, between the recorded ones."""
    shares = [found.get(f"inactive_{percent}", 0.0) for percent in INACTIVE_PERCENTS]
    return float(np.interp(threshold_percent, INACTIVE_PERCENTS, shares))


def judge_inactive(
    rule: Rule, shares: list[tuple[int, str, float]], *, limit: float, nothing: str, what: str, advice: str
) -> Verdict:
    """(step, layer, share of silent units) against a limit."""
    if not shares:
        return rule.not_applicable(nothing)
    worst: dict[int, tuple[float, str]] = {}
    for step, name, value in shares:
        worst[step] = max((value, name), worst.get(step, (value, name)))
    evidence: Evidence = {
        "step": [float(step) for step in worst],
        "share of silent units in the worst layer": [value for value, _ in worst.values()],
        "threshold_layer": limit,
    }
    for step, (value, name) in worst.items():
        if value > limit:
            layers = sum(at == step and high > limit for at, _, high in shares)
            return rule.issue(
                step=step,
                summary=f"At step {step} {share(value)} of the units of {name} {what}; {layers} "
                f"{'layer is' if layers == 1 else 'layers are'} above {share(limit)}.",
                advice=advice,
                evidence=evidence,
            )
    value, name = max(worst.values())
    return rule.fine(f"At most {share(value)} of a layer's units {what} ({name}).", evidence)
