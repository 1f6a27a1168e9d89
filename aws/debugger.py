"""SageMaker Debugger's part of a CreateTrainingJob request, for accounts that still have it.

The service is closed to new customers since 2026-07-30 (the same rules run inside the container), so a
recipe asks for it with `on_service = true`. Rule names and parameters are the documented ones, all values
strings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aws.site import Site
from aws.steps import PlanError
from training.recipe import Debugger, Recipe

REGISTRIES = Path(__file__).with_name("registries.json")  # from the SageMaker SDK's image_uri_config
RULES_REPOSITORY = "sagemaker-debugger-rules"

# What each rule looks at; the hook saves these collections. A rule that is not named takes the losses.
COLLECTIONS = {
    "VanishingGradient": ("gradients",),
    "ExplodingTensor": ("gradients", "weights", "losses"),
    "PoorWeightInitialization": ("weights", "gradients", "losses", "relu_input"),
    "DeadRelu": ("relu_output",),
    "SaturatedActivation": ("activations",),
    "WeightUpdateRatio": ("weights",),
    "AllZero": ("weights", "gradients"),
    "UnchangedTensor": ("weights",),
    "TensorVariance": ("weights",),
}
REGEXES = {
    "relu_input": ".*[Rr]e[Ll][Uu].*_input_.*",
    "relu_output": ".*[Rr]e[Ll][Uu].*_output_.*",
    "activations": ".*(relu|ReLU|tanh|sigmoid).*_input_.*",
}


def build_debugger(recipe: Recipe, site: Site, *, output: str) -> dict[str, Any]:
    """The five keys of CreateTrainingJob, or the one that turns the profiler off (it was on by default)."""
    debugger = recipe.debugger
    if not debugger.on_service:
        return {"ProfilerConfig": {"DisableProfiler": True}}
    if recipe.training.instance_count > 1 and recipe.training.spot:
        raise PlanError(
            "[debugger] on_service = true does not work with checkpoints on several instances, and spot "
            "= true "
            "needs them; drop one of the three."
        )
    image = registry_image(RULES_REPOSITORY, site.region) + ":latest"
    request: dict[str, Any] = {
        "DebugHookConfig": build_hook_config(debugger, output),
        "ProfilerConfig": {"S3OutputPath": output, "ProfilingIntervalInMilliseconds": 500},
    }
    if debugger.rules:
        request["DebugRuleConfigurations"] = [_rule(name, debugger, image) for name in debugger.rules]
    if debugger.profiler_rules:
        request["ProfilerRuleConfigurations"] = [
            _rule(name, debugger, image) for name in debugger.profiler_rules
        ]
    return request


def build_hook_config(debugger: Debugger, output: str) -> dict[str, Any]:
    """DebugHookConfig: the collections that the chosen rules look at, every `save_interval` steps."""
    wanted = sorted({"losses", *(name for rule in debugger.rules for name in COLLECTIONS.get(rule, ()))})
    interval = str(debugger.save_interval)
    return {
        "S3OutputPath": output,
        "HookParameters": {"save_interval": interval},
        "CollectionConfigurations": [
            {
                "CollectionName": name,
                "CollectionParameters": {
                    "save_interval": interval,
                    # a step in mode EVAL is a validation pass, which Overfit and Overtraining look at
                    **({"eval.save_interval": "1"} if name == "losses" else {}),
                    **({"include_regex": REGEXES[name]} if name in REGEXES else {}),
                },
            }
            for name in wanted
        ],
    }


def registry_image(repository: str, region: str) -> str:
    """ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY of an image that AWS publishes."""
    accounts = json.loads(REGISTRIES.read_text())[repository]
    if region not in accounts:
        raise PlanError(f"AWS publishes no {repository} in {region}; there is one in {', '.join(accounts)}.")
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"{accounts[region]}.dkr.ecr.{region}.amazonaws.com{suffix}/{repository}"


def _rule(name: str, debugger: Debugger, image: str) -> dict[str, Any]:
    # `action` is the container's own: its rules stop the job without a permission to stop training jobs
    parameters = {
        key: _text(value) for key, value in debugger.parameters.get(name, {}).items() if key != "action"
    }
    return {
        "RuleConfigurationName": name,
        "RuleEvaluatorImage": image,
        "RuleParameters": {"rule_to_invoke": name, **parameters},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
