"""Plans as readable files, one for each recipe; with KENNEL_WRITE_PLANS=1 this test writes them.

A change of a file is a change of what is asked of AWS, and is read before it is committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aws.__main__ import main
from aws.planning import PLANNERS, Asked, plan
from aws.steps import PlanError, Step
from aws.validation import check_steps, find_faults
from tests.unit.aws.sites import RECIPES, REPOSITORY, make_recipe, make_site

PLANS = Path(__file__).with_name("plans")
RECIPE_VERBS = ("train", "tune", "transform", "deploy", "autoscale")


@pytest.mark.parametrize("name", RECIPES)
def test_plan_is_the_one_on_file(name: str) -> None:
    recipe, site = RECIPES[name], make_site()

    shown = {verb: [step.to_json() for step in plan(verb, recipe, site, Asked())] for verb in RECIPE_VERBS}

    text = json.dumps(shown, indent=1) + "\n"
    path = PLANS / f"{name}.json"
    if os.environ.get("KENNEL_WRITE_PLANS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("verb", PLANNERS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_plan_is_valid_by_the_services_own_model(name: str, verb: str) -> None:
    if verb == "ec2" and RECIPES[name].ec2 is None:
        with pytest.raises(PlanError, match=r"has no \[ec2\]"):
            plan(verb, RECIPES[name], make_site(), Asked())
        return

    steps = plan(verb, RECIPES[name], make_site(), Asked())

    assert steps
    check_steps(steps)


EVERYTHING = """
[tuning]
objective = "best_validation_top1_accuracy"
direction = "maximize"
strategy = "Hyperband"
max_run_seconds = 86400
target = 0.97
max_jobs_not_improving = 5
stop_when_converged = true
warm_start = ["dogs-1a2b3c4d", "dogs-5e6f7a8b"]
warm_start_type = "TransferLearning"
[tuning.ranges.epochs]
type = "integer"
low = 2
high = 9
[training]
instance_type = "ml.g5.xlarge"
spot = true
max_wait_seconds = 7200
network_isolation = true
weights = "s3://other/weights"
register = true
input_mode = "FastFile"
[debugger]
rules = ["VanishingGradient", "DeadRelu"]
profiler_rules = ["ProfilerReport"]
on_service = true
[debugger.parameters.VanishingGradient]
threshold = 1e-6
[endpoint]
instance_type = "ml.g5.xlarge"
capture_percent = 20
update = "canary"
shadow = "s3://other/model.tar.gz"
[endpoint.scaling]
[endpoint.lambda]
allow_s3 = ["s3://photos/in/"]
[transform]
instance_type = "ml.g4dn.xlarge"
[ec2]
instance_type = "g5.xlarge"
spot = true
[aws]
subnets = ["subnet-0a1b"]
security_groups = ["sg-0a1b"]
kms_key = "alias/kennel"
[aws.tags]
team = "dogs"
"""


@pytest.mark.parametrize("verb", PLANNERS)
def test_recipe_that_asks_for_everything_is_valid(verb: str, tmp_path: Path) -> None:
    steps = plan(verb, make_recipe(tmp_path, EVERYTHING), make_site(), Asked())

    check_steps(steps)


def test_search_knows_when_to_end_and_what_to_learn_from(tmp_path: Path) -> None:
    request = request_of("tune", "CreateHyperParameterTuningJob", EVERYTHING, tmp_path)

    config: dict[str, Any] = request["HyperParameterTuningJobConfig"]  # type: ignore[assignment]
    assert config["ResourceLimits"]["MaxRuntimeInSeconds"] == 86400
    assert config["TuningJobCompletionCriteria"] == {
        "TargetObjectiveMetricValue": 0.97,
        "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 5},
        "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"},
    }
    assert request["WarmStartConfig"] == {
        "ParentHyperParameterTuningJobs": [
            {"HyperParameterTuningJobName": "dogs-1a2b3c4d"},
            {"HyperParameterTuningJobName": "dogs-5e6f7a8b"},
        ],
        "WarmStartType": "TransferLearning",
    }


def test_what_is_fixed_on_the_command_line_is_not_searched(capsys: pytest.CaptureFixture[str]) -> None:
    path = REPOSITORY / "recipes" / "dogs-resnet50.toml"

    assert main(["tune", str(path), "--dry-run", "--set", "epochs=9"]) == 0

    ((step,),) = json.loads(capsys.readouterr().out).values()
    ranges = step["request"]["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["IntegerParameterRanges"] == []
    assert step["request"]["TrainingJobDefinition"]["StaticHyperParameters"]["epochs"] == "9"


@pytest.mark.parametrize("kind", ["serverless", "async"])
def test_other_endpoints_are_valid(kind: str, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, f"[endpoint.{kind}]")

    steps = plan("deploy", recipe, make_site(), Asked())

    check_steps(steps)
    (config,) = [step.request for step in steps if step.operation == "CreateEndpointConfig"]
    assert ("ServerlessConfig" in config["ProductionVariants"][0]) == (kind == "serverless")
    assert ("AsyncInferenceConfig" in config) == (kind == "async")


def request_of(verb: str, operation: str, text: str, folder: Path) -> dict[str, object]:
    """The request of one operation in a plan."""
    steps = plan(verb, make_recipe(folder, text), make_site(), Asked())
    return next(dict(step.request) for step in steps if step.operation == operation)


def test_same_recipe_gives_the_same_names_and_a_change_or_a_run_new_ones(tmp_path: Path) -> None:
    def name(text: str, run: str = "") -> str:
        (step, *_) = plan("train", make_recipe(tmp_path, text), make_site(run=run), Asked())
        return str(step.request["TrainingJobName"])

    assert name("") == name("")
    assert len({name(""), name("", "2"), name("[hyperparameters]\nepochs = 9")}) == 3
    assert name("").startswith("dogs-")


def test_gpu_hosts_get_a_driver_new_enough(tmp_path: Path) -> None:
    text = "[endpoint]\ninstance_type = 'ml.g5.xlarge'\n[transform]\ninstance_type = 'ml.g4dn.xlarge'"

    config = request_of("deploy", "CreateEndpointConfig", text, tmp_path)
    job = request_of("transform", "CreateTransformJob", text, tmp_path)
    model = request_of("deploy", "CreateModel", text, tmp_path)

    assert "al2-ami-sagemaker-inference-gpu-2-1" in str(config)
    assert "al2-ami-sagemaker-batch-gpu-535" in str(job)
    assert "kennel/serving-gpu@" in str(model)


def test_cpu_and_newer_gpu_hosts_are_left_alone(tmp_path: Path) -> None:
    for instance_type in ("ml.m5.large", "ml.g6.xlarge"):
        config = request_of(
            "deploy", "CreateEndpointConfig", f"[endpoint]\ninstance_type = '{instance_type}'", tmp_path
        )

        assert "Ami" not in str(config)


def test_users_scaling_is_the_default(tmp_path: Path) -> None:
    target, policy = plan("autoscale", make_recipe(tmp_path, ""), make_site(), Asked())

    assert (target.request["MinCapacity"], target.request["MaxCapacity"]) == (1, 3)
    settings = policy.request["TargetTrackingScalingPolicyConfiguration"]
    assert settings == {
        "TargetValue": 10.0,
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        },
        "ScaleInCooldown": 120,
        "ScaleOutCooldown": 30,
    }


def test_local_artifact_is_uploaded_under_its_checksum(tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"weights")

    upload, model, *_ = plan("deploy", make_recipe(tmp_path, ""), make_site(), Asked(artifact=str(archive)))

    assert upload.operation == "PutObject"
    key = upload.request["Key"]
    assert model.request["PrimaryContainer"]["ModelDataUrl"] == make_site().uri(key)
    assert "weights" not in json.dumps(upload.to_json())


@pytest.mark.parametrize(
    ("operation", "request_", "fault"),
    [
        pytest.param(
            "CreateTransformJob",
            {"TransformResources": {"InstanceType": "ml.bogus", "InstanceCount": 1}},
            "TransformResources.InstanceType='ml.bogus' is not offered",
            id="enumeration",
        ),
        pytest.param(
            "CreateModel", {"ModelName": "a" * 64}, "64 characters; allowed are 0 to 63", id="maximum"
        ),
        pytest.param("CreateModel", {"ModelName": "a_b"}, "does not have the form", id="pattern"),
        pytest.param("CreateModel", {"Modelname": "a"}, 'Unknown parameter in input: "Modelname"', id="name"),
        pytest.param("CreateModel", {}, 'Missing required parameter in input: "ModelName"', id="missing"),
        pytest.param(
            "CreateModel",
            {"ModelName": "a", "Tags": [{"Key": "k", "Value": "v"}] * 51},
            "51 entries",
            id="list",
        ),
        pytest.param(
            "CreateModel",
            {"ModelName": "a", "Tags": [{"Key": "k;", "Value": "v"}]},
            "Tags[0].Key='k;'",
            id="java",
        ),
    ],
)
def test_invalid_request_is_named(operation: str, request_: dict[str, object], fault: str) -> None:
    faults = find_faults(Step(service="sagemaker", operation=operation, request=request_))

    assert any(fault in found for found in faults), faults


NO_NETWORK = """
import socket, sys
def refuse(*arguments, **settings): raise OSError("a dry run asked the network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from aws.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", ["train", "tune", "transform", "deploy"])
def test_dry_run_of_all_recipes_needs_neither_credentials_nor_network(verb: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    recipes = [str(path) for path in sorted((REPOSITORY / "recipes").glob("*.toml"))]

    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, verb, *recipes, "--dry-run"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(json.loads(done.stdout)) == len(recipes)
    assert "000000000000 stands for the account" in done.stderr
