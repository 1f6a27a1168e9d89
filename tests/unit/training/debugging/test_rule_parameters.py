"""Rules from a recipe and from DebugRuleConfigurations: documented names, strings, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.debugging.rules import (
    RULES,
    RuleError,
    RuleSettings,
    check_rules,
    evaluate,
    read_recipe_rules,
    read_rule_configuration,
)
from training.debugging.series import EVAL, Predictions, Series
from training.recipe import read_recipe

REPOSITORY = Path(__file__).resolve().parents[4]

# Every parameter of "List of Debugger built-in rules", as the strings that AWS sends.
DOCUMENTED = {
    "VanishingGradient": {"threshold": "0.0000001"},
    "ExplodingTensor": {"collection_names": "gradients", "tensor_regex": ".*", "only_nan": "False"},
    "PoorWeightInitialization": {
        "activation_inputs_regex": ".*relu_input", "threshold": "10.0", "distribution_range": "0.001",
        "patience": "5", "steps": "10",
    },
    "DeadRelu": {
        "tensor_regex": ".*relu_output|.*ReLU_output", "threshold_inactivity": "1.0",
        "threshold_layer": "50.0",
    },
    "Overfit": {"tensor_regex": ".*", "start_step": "0", "patience": "1", "ratio_threshold": "0.1"},
    "Overtraining": {"patience_train": "5", "patience_validation": "10", "delta": "0.01"},
    "LossNotDecreasing": {
        "collection_names": "losses", "tensor_regex": "None", "use_losses_collection": "True",
        "num_steps": "10", "diff_percent": "0.1", "increase_threshold_percent": "5", "mode": "GLOBAL",
    },
    "ClassImbalance": {
        "threshold_imbalance": "10", "threshold_misprediction": "0.7", "samples": "500", "argmax": "False",
        "labels_regex": ".*labels", "predictions_regex": ".*predictions",
    },
    "SaturatedActivation": {
        "collection_names": "None", "tensor_regex": ".*tanh_input|.*sigmoid_input",
        "threshold_tanh_min": "-9.4999", "threshold_tanh_max": "9.4999", "threshold_sigmoid_min": "-23",
        "threshold_sigmoid_max": "16.99999", "threshold_inactivity": "1.0", "threshold_layer": "50.0",
    },
    "WeightUpdateRatio": {
        "num_steps": "100", "large_threshold": "10", "small_threshold": "0.00000001",
        "epsilon": "0.000000001",
    },
    "AllZero": {"collection_names": "weights", "tensor_regex": ".*", "threshold": "100"},
    "UnchangedTensor": {
        "collection_names": "weights", "tensor_regex": ".*", "num_steps": "3", "rtol": "1e-05",
        "atol": "1e-08", "equal_nan": "False",
    },
    "TensorVariance": {
        "collection_names": "weights", "tensor_regex": ".*", "max_threshold": "10",
        "min_threshold": "0.00001",
    },
    "Confusion": {"category_no": "10", "min_diag": "0.9", "max_off_diag": "0.1"},
    "CheckInputImages": {
        "threshold_mean": "0.2", "threshold_samples": "500", "regex": ".*hybridsequential0_input_0",
        "channel": "1",
    },
    "StalledTrainingRule": {
        "threshold": "120", "stop_training_on_fire": "True", "training_job_name_prefix": "dogs",
    },
    "LowGPUUtilization": {"threshold_p95": "70", "threshold_p5": "10", "window": "500", "patience": "1000"},
    "BatchSize": {
        "cpu_threshold_p95": "70", "gpu_threshold_p95": "70", "gpu_memory_threshold_p95": "70",
        "patience": "100", "window": "500",
    },
    "CPUBottleneck": {"threshold": "50", "cpu_threshold": "90", "gpu_threshold": "10", "patience": "100"},
    "IOBottleneck": {"threshold": "50", "io_threshold": "50", "gpu_threshold": "70", "patience": "1000"},
    "GPUMemoryIncrease": {"increase": "10", "patience": "100", "window": "500"},
    "LoadBalancing": {"threshold": "0.5", "patience": "10"},
    "MaxInitializationTime": {"threshold": "20"},
    "StepOutlier": {"mode": "None", "n_outliers": "10", "stddev": "5"},
    "Dataloader": {"min_threshold": "70", "max_threshold": "200"},
    "DataWait": {"threshold": "20"},
    "OverallSystemUsage": {},
    "OverallFrameworkMetrics": {},
    "ProfilerReport": {"CPUBottleneck_cpu_threshold": "90", "MaxInitializationTime_threshold": "20"},
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rule_takes_its_documented_parameters_as_rule_parameters(rule: str) -> None:
    configuration = {
        "RuleConfigurationName": f"my-{rule}",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": rule, "scan_interval_us": "60000000", **DOCUMENTED[rule]},
    }

    settings = read_rule_configuration(configuration)
    (verdict,) = evaluate(Series(), [settings])

    assert settings.name == verdict.rule == rule
    assert verdict.status == "NotApplicable" and verdict.summary


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_rules_of_every_recipe_are_accepted(path: Path) -> None:
    debugger = read_recipe(path).debugger

    settings = read_recipe_rules([*debugger.rules, *debugger.profiler_rules], debugger.parameters)

    check_rules(settings)


@pytest.mark.parametrize(
    ("configuration", "action"),
    [
        pytest.param({"action_json": '{"name": "stoptraining"}'}, "stop", id="StopTraining"),
        pytest.param({"stop_training_on_fire": "True"}, "stop", id="stalled"),
        pytest.param({}, "report", id="none"),
    ],
)
def test_action_of_a_configuration_is_understood(configuration: dict[str, str], action: str) -> None:
    parameters = {"rule_to_invoke": "StalledTrainingRule", **configuration}

    assert read_rule_configuration({"RuleParameters": parameters}).action == action


def test_configuration_without_a_rule_to_invoke_is_called_by_its_own_name() -> None:
    assert read_rule_configuration({"RuleConfigurationName": "Overfit"}).name == "Overfit"
    assert read_rule_configuration({}).name == ""


@pytest.mark.parametrize(
    ("parameters", "action"),
    [
        pytest.param({"stop_training_on_fire": True}, "stop", id="true"),
        pytest.param({"stop_training_on_fire": "True"}, "stop", id="AWS's True"),
        pytest.param({"stop_training_on_fire": False, "action": "report"}, "report", id="false"),
        pytest.param({"action": "stop"}, "stop", id="action"),
    ],
)
def test_action_of_a_recipe_is_understood(parameters: dict[str, object], action: str) -> None:
    (settings,) = read_recipe_rules(["StalledTrainingRule"], {"StalledTrainingRule": parameters})

    assert settings.action == action


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            RuleSettings(name="Overfit", parameters={"patients": "1"}),
            "Overfit has no parameter 'patients'. Did you mean 'patience'? Known: tensor_regex, start_step, "
            "patience, ratio_threshold.",
            id="parameter",
        ),
        pytest.param(
            RuleSettings(name="Overfit", parameters={"patience": "some"}),
            "Overfit: patience='some' is not a whole number.",
            id="value",
        ),
        pytest.param(
            RuleSettings(name="OverFit"),
            "Unknown rule 'OverFit'. Did you mean 'Overfit'? Known: Van",
            id="rule",
        ),
        pytest.param(
            RuleSettings(name="ProfilerReport", parameters={"BatchSize_windows": "1"}),
            "BatchSize has no parameter 'windows'. Did you mean 'window'?",
            id="expanded",
        ),
        pytest.param(
            RuleSettings(name="Overfit", action="email"),
            "action='email' is not one of report, stop.",
            id="action",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(settings: RuleSettings, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        check_rules([settings])

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("AllZero", {"collection_names": "embeddings"}, "'embeddings' is not recorded; there are weights"),
        ("AllZero", {"tensor_regex": "*"}, "tensor_regex='\\*' is not a regular expression"),
        ("LossNotDecreasing", {"mode": "PREDICT"}, "mode='PREDICT' is not one of EVAL, TRAIN, GLOBAL"),
    ],
)
def test_value_that_no_series_could_satisfy_is_refused_at_once(
    name: str, parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(RuleError, match=message):
        check_rules([RuleSettings(name=name, parameters=parameters)])


def test_wrong_number_of_classes_does_not_end_a_training() -> None:
    series = Series(predictions=[Predictions(step=1, mode=EVAL, confusion=[[3, 0], [0, 3]])])

    (verdict,) = evaluate(series, [RuleSettings(name="Confusion", parameters={"category_no": "10"})])

    assert (verdict.status, verdict.summary) == (
        "Error",
        "Confusion: category_no=10, but there are 2 classes.",
    )
