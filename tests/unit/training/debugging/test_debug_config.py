"""Rules as a recipe, a command line and CreateTrainingJob spell them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from training.debugging.config import parse_debug_rules
from training.debugging.rules import RULES, RuleSettings
from training.hyperparameters import parse_hyperparameters
from training.job import JobError
from training.recipe import read_recipe

CONFIGURATION = {
    "RuleConfigurationName": "my-overfit",
    "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
    "RuleParameters": {"rule_to_invoke": "Overfit", "patience": "5"},
}
OVERFIT = RuleSettings(name="Overfit", parameters={"patience": "5"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("none", [], id="none"),
        pytest.param("all", [RuleSettings(name=name) for name in RULES], id="all"),
        pytest.param("Overfit:patience=5", [OVERFIT], id="compact"),
        pytest.param(
            "VanishingGradient, Overfit:patience=5;action=stop",
            [RuleSettings(name="VanishingGradient"), dataclasses.replace(OVERFIT, action="stop")],
            id="action",
        ),
        pytest.param('{"Overfit": {"patience": 5}}', [OVERFIT], id="as a recipe's tables"),
        pytest.param(json.dumps([CONFIGURATION]), [OVERFIT], id="DebugRuleConfigurations"),
    ],
)  # fmt: skip
def test_rules_are_read(text: str, expected: list[RuleSettings]) -> None:
    assert parse_debug_rules(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("Overfitt", "Overfit", id="unknown rule"),
        pytest.param("Overfit:patienc=5", "patience", id="unknown parameter"),
        pytest.param("Overfit:patience=five", "patience='five'", id="wrong type"),
        pytest.param("Overfit:patience", "parameter=value", id="no value"),
        pytest.param("{", "not JSON", id="not JSON"),
        pytest.param("[1]", "list of rule configurations", id="wrong JSON"),
    ],
)
def test_wrong_rule_is_named_with_what_is_known(text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        parse_debug_rules(text)


@pytest.mark.parametrize(
    ("debugger", "expected"),
    [
        pytest.param("", "all", id="nothing said"),
        pytest.param('rules = ["Overfit"]\nprofiler_rules = ["BatchSize"]', "Overfit,BatchSize", id="names"),
        pytest.param(
            'rules = ["Overfit"]\n[debugger.parameters.Overfit]\npatience = 5\naction = "stop"',
            '{"Overfit": {"patience": 5, "action": "stop"}}',
            id="parameters",
        ),
    ],
)
def test_recipes_rules_reach_the_container(tmp_path: Path, debugger: str, expected: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "watched"\n[debugger]\n{debugger}\n')

    recipe = read_recipe(path)

    sent = parse_hyperparameters(recipe.hyperparameters.to_strings()).debug_rules
    assert sent == expected
    assert parse_debug_rules(sent)
    assert recipe.with_overrides(["debug_rules=none"]).hyperparameters.debug_rules == "none"
