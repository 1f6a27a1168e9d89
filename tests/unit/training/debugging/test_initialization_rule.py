"""PoorWeightInitialization on made-up first steps: weights, activations, gradients and losses each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.verdicts import check_verdicts
from training.debugging.rules import RuleSettings, evaluate
from training.debugging.rules.rule import Verdict
from training.debugging.series import TRAIN, Fact, Series, Step, Tensors

LAYERS = {
    "stem": "Conv2d", "head": "Linear", "norm": "BatchNorm2d",
    "first": "ReLU", "second": "ReLU", "third": "Tanh",
}  # fmt: skip
FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
Values = dict[str, dict[str, float]]


def judge(
    losses: Sequence[float] = FALLING,
    *,
    rates: Sequence[float] | None = None,
    tensors: Mapping[str, Values] | None = None,
    at: int = 0,
    **parameters: str,
) -> Verdict:
    """`tensors`: collection -> tensor -> reductions, recorded at step `at`."""
    series = Series(facts=[Fact(time=0.0, name="layers", value=LAYERS)])
    for number, loss in enumerate(losses):
        rate = rates[number] if rates else 0.1
        series.add(
            Step(
                step=number,
                epoch=0,
                mode=TRAIN,
                time=float(number),
                loss=loss,
                accuracy=0.5,
                images=8,
                learning_rate=rate,
            )
        )
    for collection, values in (tensors or {}).items():
        series.add(Tensors(step=at, mode=TRAIN, collection=collection, values=values))
    (verdict,) = evaluate(series, [RuleSettings(name="PoorWeightInitialization", parameters=parameters)])
    return verdict


def gradients(**spans: float) -> dict[str, Values]:
    values = {
        f"gradient/{layer}.weight": {"p5": 1.0, "p95": 1.0 + span, "mean_abs": 0.5}
        for layer, span in spans.items()
    }
    return {"gradients": values}


def activations(**variances: float) -> dict[str, Values]:
    values = {f"{layer}_output_0": {"variance": variance} for layer, variance in variances.items()}
    return {"activations": values | {"first_output_1": {"mean": 1.0}}}


def weights(name: str, *, variance: float = 0.0, count: float = 9.0) -> dict[str, Values]:
    return {"weights": {name: {"variance": variance, "count": count}}}


ILL = {
    "loss rises": judge([1.0, 1.1, 1.0, 1.1, 1.0, 1.2, 1.3, 1.2, 1.3, 1.2, 0.1]),
    "loss stands still": judge([0.7] * 10),
    "loss rises after the warm-up": judge(
        [9.0, 8.0, *(0.5 + 0.1 * n for n in range(10))], rates=[0.01, 0.05, *[0.1] * 10]
    ),
    "gradients all alike": judge(tensors=gradients(stem=2.0, head=1e-5, norm=0.0)),
    "activations that explode": judge(tensors=activations(first=1.0, second=20.0, third=1e6)),
    "activations that vanish": judge(tensors=activations(first=1.0, second=0.0)),
    "activations of another kind": judge(
        tensors=activations(first=1.0, third=50.0), activation_inputs_regex="third.*|first.*"
    ),
    "weights all alike": judge(tensors=weights("stem.weight")),
}
WELL = {
    "loss falls": judge(),
    "loss falls after the warm-up": judge(
        [*(0.5 + 0.1 * n for n in range(5)), *FALLING], rates=[*[0.01] * 5, *[0.1] * 10]
    ),
    "noisy loss": judge([1, 2, 1, 2, 1, 2, 1, 2, 1, 2]),
    "few steps": judge([0.7] * 9),
    "gradients that differ just enough": judge(
        tensors=gradients(stem=2.0, head=0.25, norm=0.0), distribution_range="0.5"
    ),
    "activations at the threshold": judge(tensors=activations(first=1.0, second=10.0, third=1e6)),
    "weights of a norm": judge(tensors=weights("norm.weight")),
    "a single weight": judge(tensors=weights("head.weight", count=1.0)),
    "a bias": judge(tensors=weights("stem.bias")),
    "weights all alike later": judge(tensors=weights("stem.weight"), at=1),
    "late gradients": judge(tensors=gradients(head=0.0), at=10),
}


@pytest.mark.parametrize("name", ILL)
def test_poor_beginning_is_found(name: str) -> None:
    assert ILL[name].fired, ILL[name].summary


@pytest.mark.parametrize("name", WELL)
def test_good_beginning_is_left_alone(name: str) -> None:
    assert WELL[name].status == "NoIssuesFound", WELL[name].summary


def test_words_and_evidence_of_a_beginning_are_those_on_file() -> None:
    check_verdicts(ILL | WELL, Path(__file__).parent / "initialization_verdicts.json", with_numbers=True)
