"""What the hook writes is read by smdebug's own reader and judged by its own Rule."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aws.debugger import build_hook_config
from tests.watched_training import debugging_folder, small_network, train_watched
from training.recipe import Debugger


@pytest.fixture(autouse=True)
def library_of_2023() -> Iterator[None]:
    """Its warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two epochs of three steps that wrote every second step."""
    prefix = tmp_path_factory.mktemp("smdebug")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = small_network()
        train_watched(prefix, network, {"smdebug": "true", "debug_interval": "2"})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    return debugging_folder(prefix) / "smdebug"


def _trial(folder: Path) -> Any:
    from smdebug.trials import create_trial

    return create_trial(str(folder))


def test_smdebugs_reader_sees_losses_gradients_and_weights_at_the_expected_steps(written: Path) -> None:
    from smdebug import modes

    trial = _trial(written)

    assert trial.steps(mode=modes.TRAIN) == [0, 2, 4]
    assert trial.tensor_names(collection="losses") == ["CrossEntropyLoss_output_0"]
    assert "gradient/Sequential_5.weight" in trial.tensor_names(collection="gradients")
    assert "Sequential_5.weight" in trial.tensor_names(collection="weights")
    first = trial.tensor("Sequential_5.weight").value(0, mode=modes.TRAIN)
    assert torch.equal(torch.from_numpy(first), small_network()[5].weight)  # type: ignore[arg-type]
    assert trial.tensor("gradient/Sequential_5.weight").value(2, mode=modes.TRAIN).any()
    assert trial.loaded_all_steps  # by then: a reader need not wait for more


def test_losses_are_those_of_the_series(written: Path) -> None:
    from smdebug import modes

    from training.debugging.series import EVAL, TRAIN, read_series

    series = read_series(written.parent)
    loss = _trial(written).tensor("CrossEntropyLoss_output_0")
    recorded = {step.step: step.loss for step in series.steps if step.mode == TRAIN}

    assert [float(loss.value(step, mode=modes.TRAIN)) for step in (0, 2, 4)] == pytest.approx(
        [recorded[step] for step in (0, 2, 4)], rel=1e-4
    )
    passes = [float(loss.value(step, mode=modes.EVAL)) for step in loss.steps(mode=modes.EVAL)]
    assert passes == pytest.approx([step.loss for step in series.steps if step.mode == EVAL], rel=1e-4)


def test_rule_of_ones_own_runs_on_it(written: Path) -> None:
    from smdebug.exceptions import NoMoreData, RuleEvaluationConditionMet
    from smdebug.rules import Rule, invoke_rule

    class GradientBelow(Rule):  # type: ignore[misc]
        """Fires when every mean |gradient| of a step is below the threshold."""

        def __init__(self, base_trial: Any, threshold: float) -> None:
            super().__init__(base_trial, action_str="")
            self.threshold = threshold

        def invoke_at_step(self, step: int) -> bool:
            names = self.base_trial.tensor_names(collection="gradients", step=step)
            means = [abs(self.base_trial.tensor(name).value(step)).mean() for name in names]
            return bool(means) and max(means) < self.threshold

    with pytest.raises(RuleEvaluationConditionMet):
        invoke_rule(GradientBelow(_trial(written), 1e9), raise_eval_cond=True)
    with pytest.raises(NoMoreData):  # at the end of the training, silent until there
        invoke_rule(GradientBelow(_trial(written), 0.0), raise_eval_cond=True)


def test_job_with_a_debughookconfig_writes_what_its_rules_look_at(tmp_path: Path) -> None:
    from smdebug import modes

    tensors = tmp_path / "output" / "tensors"
    config = tmp_path / "input" / "config" / "debughookconfig.json"
    config.parent.mkdir(parents=True)
    debugger = Debugger(
        rules=("VanishingGradient", "Overfit", "PoorWeightInitialization", "DeadRelu"), save_interval=3
    )
    content = build_hook_config(debugger, "s3://bucket/prefix") | {"LocalPath": str(tensors)}
    config.write_text(json.dumps(content))
    network = small_network()
    network.add_module("relu", nn.ReLU())  # its name is what the documented regexes look for

    train_watched(tmp_path, network)

    trial = _trial(tensors)
    assert trial.tensor_names(collection="relu_output") == ["relu_output_0"]
    assert trial.tensor_names(collection="relu_input") == ["relu_input_0"]
    assert trial.tensor("gradient/Sequential_5.weight").steps(mode=modes.TRAIN) == [0, 3]
    assert trial.tensor("relu_output_0").value(0, mode=modes.TRAIN).shape == (8, 2)
    assert len(trial.tensor("CrossEntropyLoss_output_0").steps(mode=modes.EVAL)) == 2


def test_job_without_it_writes_nothing(tmp_path: Path) -> None:
    train_watched(tmp_path, small_network(), {"epochs": "1"})

    assert sorted(path.name for path in debugging_folder(tmp_path).iterdir()) == ["series.jsonl"]
