"""Every model rule fires on its fault and not on the healthy near twin, live and on the stored series."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from artifact.preprocess import Preprocess
from tests.verdicts import check_verdicts
from tests.zoo.trainings import (
    SIDE,
    Ascent,
    Detached,
    Outcome,
    Spoiler,
    Training,
    ask,
    convolutional,
    plain,
    run_training,
)
from training.debugging.rules import RuleSettings, evaluate


def kill_first_relu(network: nn.Sequential) -> None:
    """A bias so low that nothing passes."""
    nn.init.constant_(network[1].bias, -10.0)  # type: ignore[arg-type]


def set_to_zero(network: nn.Sequential) -> None:
    """All parameters."""
    for parameter in network.parameters():
        parameter.zero_()


FAULTS = {
    "dead ReLUs": Training(network=convolutional(kill_first_relu)),
    "learning rate 100": Training(network=plain(), settings={"learning_rate": "100", "warmup_epochs": "0"}),
    "sign error": Training(network=convolutional(), observers=lambda network: [Ascent(network, 12)]),
    "frozen layer": Training(network=Detached),
    "all-zero weights": Training(network=convolutional(set_to_zero)),
    "tiny weights": Training(network=plain(scale=0.01, depth=4), settings={"learning_rate": "0.01"}),
    "huge weights": Training(network=plain(scale=10.0), settings={"learning_rate": "1e-5"}),
    "learnt by heart": Training(
        network=plain(depth=1),
        are_labels_random=True,
        noise=60.0,
        settings={"epochs": "12", "weight_decay": "0", "learning_rate": "0.02", "label_smoothing": "0"},
    ),
    "plateau": Training(
        network=convolutional(), settings={"learning_rate": "1e-8", "epochs": "12", "schedule": "constant"}
    ),
    "NaN at step 9": Training(network=convolutional(), observers=lambda network: [Spoiler(network, 9)]),
    "imbalanced classes": Training(network=convolutional(), counts=(88, 4, 4)),
    "two classes alike": Training(network=convolutional(), alike=True),
    "unnormalised inputs": Training(
        network=convolutional(),
        preprocess=Preprocess(resize=SIDE, crop=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    ),
    "saturated sigmoids": Training(network=plain(activation=nn.Sigmoid, scale=3000.0, depth=1)),
    "vanishing through sigmoids": Training(network=plain(activation=nn.Sigmoid, scale=0.02, depth=5)),
}
TWINS = {
    "healthy": Training(network=convolutional()),
    "healthy without norms": Training(network=plain(), settings={"learning_rate": "0.005"}),
    "healthy sigmoids": Training(
        network=plain(activation=nn.Sigmoid, depth=1), settings={"learning_rate": "0.05"}
    ),
}

TABLE = [
    (ask("VanishingGradient"), "vanishing through sigmoids", "healthy sigmoids"),
    (ask("VanishingGradient"), "all-zero weights", "healthy"),
    (ask("ExplodingTensor"), "NaN at step 9", "healthy"),
    (ask("ExplodingTensor", {"only_nan": "True", "collection_names": "weights"}), "NaN at step 9", "healthy"),
    (ask("PoorWeightInitialization"), "all-zero weights", "healthy"),
    (ask("PoorWeightInitialization"), "tiny weights", "healthy without norms"),
    (ask("DeadRelu"), "dead ReLUs", "healthy"),
    (ask("SaturatedActivation"), "saturated sigmoids", "healthy sigmoids"),
    (ask("WeightUpdateRatio"), "learning rate 100", "healthy without norms"),
    (ask("WeightUpdateRatio", {"small_threshold": "1e-6"}), "plateau", "healthy"),
    (ask("AllZero"), "all-zero weights", "healthy"),
    (ask("UnchangedTensor"), "frozen layer", "healthy"),
    (ask("TensorVariance", {"max_threshold": "1.0"}), "huge weights", "healthy without norms"),
    (ask("Overfit"), "learnt by heart", "healthy"),
    (ask("Overtraining", {"patience_validation": "5"}), "plateau", "healthy"),
    (ask("LossNotDecreasing", {"num_steps": "6"}), "plateau", "healthy"),
    (ask("LossNotDecreasing", {"num_steps": "6"}), "sign error", "healthy"),
    (ask("ClassImbalance", {"samples": "96"}), "imbalanced classes", "healthy"),
    (ask("Confusion", {"category_no": "3"}), "two classes alike", "healthy"),
    (ask("CheckInputImages", {"threshold_samples": "96"}), "unnormalised inputs", "healthy"),
]

Zoo = Callable[[str], Outcome]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by sharing their work out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Each training runs once, watched by every rule that the table asks of it."""

    @functools.cache
    def run(name: str) -> Outcome:
        rules = [rule for rule, fault, twin in TABLE if name in (fault, twin)]
        directory = tmp_path_factory.mktemp("zoo") / "debugging"
        return run_training((FAULTS | TWINS)[name], directory, rules)

    return run


@pytest.mark.parametrize(("rule", "fault", "twin"), TABLE, ids=[f"{r.name}-{f}" for r, f, _ in TABLE])
def test_rule_fires_on_its_fault_and_not_on_the_twin(
    zoo: Zoo, rule: RuleSettings, fault: str, twin: str
) -> None:
    (ill,) = evaluate(zoo(fault).series, [rule])
    (well,) = evaluate(zoo(twin).series, [rule])

    assert ill.fired, ill.summary
    assert well.status == "NoIssuesFound", well.summary
    assert rule.name in zoo(fault).fired_live
    assert rule.name not in zoo(twin).fired_live
    assert ill.step is not None and ill.advice and ill.summary.endswith(".")


def test_words_are_those_on_file(zoo: Zoo) -> None:
    asked = {f"{rule.name} of {fault}": (rule, fault) for rule, fault, _ in TABLE}
    verdicts = {name: evaluate(zoo(fault).series, [rule])[0] for name, (rule, fault) in asked.items()}
    for rule, _, twin in TABLE:  # which layer a healthy network's words name differs between processors
        (verdict,) = evaluate(zoo(twin).series, [rule])
        verdicts[f"{rule.name} of {twin}"] = replace(verdict, summary="")

    check_verdicts(verdicts, Path(__file__).parent / "verdicts.json", with_numbers=False)


def test_step_of_the_fault_is_named(zoo: Zoo) -> None:
    (verdict,) = evaluate(zoo("NaN at step 9").series, [ask("ExplodingTensor")])

    assert verdict.step == 10  # the first loss after the update that spoiled the weights


def test_every_fault_is_asked_about() -> None:
    assert {fault for _, fault, _ in TABLE} == set(FAULTS)
