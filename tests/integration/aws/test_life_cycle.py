"""The whole life of a recipe on moto: made, made again, killed in between, changed, removed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws.client import Aws
from aws.destroy import empty_bucket, find_shared, remove
from aws.execution import execute
from aws.function import plan_function
from aws.inventory import find_resources
from aws.planning import Asked, plan
from aws.site import RECIPE_TAG, Site
from aws.steps import Step
from tests.integration.aws.conftest import reset
from tests.integration.aws.moto_service import Service
from tests.unit.aws.sites import RECIPES, REGION, make_recipe, make_site
from training.recipe import Recipe

VERBS = ("bootstrap", "train", "tune", "transform", "deploy", "autoscale", "function", "explain", "ec2")
RECIPE = RECIPES["dogs-resnet50-multi-instance"]


CLIENTS: dict[str, Any] = {}  # one for all: making one takes longer than a whole plan


class Killed(BaseException):
    """The process ends here."""


class Recorded(Aws):
    """Keeps what was called; is killed after so many requests that change something."""

    def __init__(self, *, die_after: int = 10**6) -> None:
        super().__init__(region=REGION, sleep=lambda seconds: None)
        self._clients = CLIENTS
        self.calls: list[tuple[str, str, Mapping[str, Any]]] = []
        self.left = die_after

    def call(self, service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append((service, operation, request))
        answer = super().call(service, operation, request)
        self.left -= is_change(operation)
        if self.left <= 0 and is_change(operation):
            raise Killed
        return answer

    def pages(self, service: str, operation: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.calls.append((service, operation, request))
        return super().pages(service, operation, request)

    @property
    def changes(self) -> list[str]:
        """Operations that changed something."""
        return [operation for _, operation, _ in self.calls if is_change(operation)]


def is_change(operation: str) -> bool:
    """By its verb."""
    return not operation.startswith(("Describe", "Get", "List", "Head", "Filter", "Simulate", "BatchGet"))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A function's archive, not ours: moto does not run it."""
    path = tmp_path_factory.mktemp("function") / "function-0123456789ab.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("handler.py", "")
    return path


def all_steps(recipe: Recipe, site: Site, archive: Path) -> list[Step]:
    """Every verb's plan, one after the other."""
    return [
        step
        for verb in VERBS
        for step in (
            plan_function(recipe, site, archive=archive)
            if verb == "function"
            else plan(verb, recipe, site, Asked())
        )
    ]


def say_nothing(text: str) -> None:
    """A report for nobody."""


def snapshot(site: Site, recipe: Recipe) -> dict[str, Any]:
    """What an account holds of a recipe, by a client of its own."""
    aws = Recorded()
    found = [*find_resources(aws, site, recipe), *find_shared(aws, site)]
    sagemaker, scaling, functions = map(aws._client, ("sagemaker", "application-autoscaling", "lambda"))
    policies = [
        (policy["ResourceId"], policy["PolicyName"])
        for namespace in ("sagemaker", "lambda")
        for policy in scaling.describe_scaling_policies(ServiceNamespace=namespace)["ScalingPolicies"]
    ]
    aliases = functions.list_aliases(FunctionName=f"kennel-{recipe.name}")["Aliases"]
    return {
        "resources": sorted((item.kind, "" if item.kind == "machine" else item.name) for item in found),
        "jobs": [job["TrainingJobName"] for job in sagemaker.list_training_jobs()["TrainingJobSummaries"]],
        "policies": sorted(policies),
        "aliases": [(alias["Name"], alias["FunctionVersion"]) for alias in aliases],
        "endpoint": sagemaker.describe_endpoint(EndpointName=recipe.name)["EndpointConfigName"],
    }


def test_second_run_changes_nothing_and_destroy_leaves_nothing(service: Service, archive: Path) -> None:
    site, aws = make_site(), Recorded()
    steps = all_steps(RECIPE, site, archive)
    execute(aws, steps, say_nothing)
    first = snapshot(site, RECIPE)

    again = Recorded()
    done = execute(again, steps, say_nothing)

    assert again.changes == []
    assert done.count("kept") == len(steps)
    assert snapshot(site, RECIPE) == first
    kinds = {kind for kind, _ in first["resources"]}
    assert kinds >= {"endpoint", "Model", "EndpointConfig", "function", "log", "role", "bucket", "repository"}
    remove(aws, find_resources(aws, site, RECIPE), say_nothing)
    empty_bucket(aws, site, [""], say_nothing)
    remove(aws, list(find_shared(aws, site)), say_nothing)
    assert_account_is_empty()


def assert_account_is_empty() -> None:
    """No resource that lasts is left, asked service by service."""
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    iam = boto3.client("iam", region_name=REGION)
    machines = boto3.client("ec2", region_name=REGION).describe_instances()["Reservations"]
    scaling = boto3.client("application-autoscaling", region_name=REGION)
    left = {
        "endpoints": sagemaker.list_endpoints()["Endpoints"],
        "configs": sagemaker.list_endpoint_configs()["EndpointConfigs"],
        "models": sagemaker.list_models()["Models"],
        "functions": boto3.client("lambda", region_name=REGION).list_functions()["Functions"],
        "logs": boto3.client("logs", region_name=REGION).describe_log_groups()["logGroups"],
        "buckets": boto3.client("s3", region_name=REGION).list_buckets()["Buckets"],
        "repositories": boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"],
        "roles": iam.list_roles()["Roles"],
        "profiles": iam.list_instance_profiles()["InstanceProfiles"],
        "targets": [
            target
            for namespace in ("sagemaker", "lambda")
            for target in scaling.describe_scalable_targets(ServiceNamespace=namespace)["ScalableTargets"]
        ],
        "machines": [
            machine
            for reservation in machines
            for machine in reservation["Instances"]
            if machine["State"]["Name"] not in ("shutting-down", "terminated")
        ],
    }
    assert {kind: items for kind, items in left.items() if items} == {}


def changes_of_a_whole_run() -> int:
    """How many requests a first run sends that change something: one for each step that is there once."""
    steps = all_steps(RECIPE, make_site(), Path("function-0.zip"))
    return len({str(step.to_json()) for step in steps})


@pytest.fixture(scope="module")
def reference(moto_service: Service, archive: Path) -> Iterator[dict[str, Any]]:
    """What one undisturbed run leaves."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": moto_service.url,
        }.items():
            patch.setenv(name, value)
        reset(moto_service)
        execute(Recorded(), all_steps(RECIPE, make_site(), archive), say_nothing)
        yield snapshot(make_site(), RECIPE)


@pytest.mark.parametrize("survived", range(1, changes_of_a_whole_run()))
def test_run_killed_between_two_steps_converges(
    survived: int, reference: dict[str, Any], service: Service, archive: Path
) -> None:
    steps = all_steps(RECIPE, make_site(), archive)
    with pytest.raises(Killed):
        execute(Recorded(die_after=survived), steps, say_nothing)

    execute(Recorded(), steps, say_nothing)

    assert snapshot(make_site(), RECIPE) == reference


def test_changed_recipe_moves_the_endpoint_over_and_takes_scaling_off_first(
    service: Service, tmp_path: Path
) -> None:
    site = make_site()
    text = "[endpoint]\ninstance_type = '{}'\nupdate = 'canary'\n[endpoint.scaling]"
    execute(
        Recorded(), plan("deploy", make_recipe(tmp_path, text.format("ml.m5.large")), site, Asked()), print
    )
    aws = Recorded()

    done = execute(
        aws, plan("deploy", make_recipe(tmp_path, text.format("ml.c5.large")), site, Asked()), print
    )

    order = [name for name in aws.changes if name != "CreateEndpointConfig"]
    assert order == [
        "DeleteScalingPolicy",
        "DeregisterScalableTarget",
        "UpdateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]
    assert done.count("changed") == 1
    update = next(request for _, operation, request in aws.calls if operation == "UpdateEndpoint")
    assert len(update["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]) == 2


def test_update_killed_before_its_scaling_is_back_converges(service: Service, tmp_path: Path) -> None:
    site = make_site()
    text = "[endpoint]\ninstance_type = '{}'\n[endpoint.scaling]"
    execute(
        Recorded(), plan("deploy", make_recipe(tmp_path, text.format("ml.m5.large")), site, Asked()), print
    )
    changed = plan("deploy", make_recipe(tmp_path, text.format("ml.c5.large")), site, Asked())
    for survived in (2, 3, 4, 5):
        with pytest.raises(Killed):
            execute(Recorded(die_after=survived), changed, print)
        execute(Recorded(), changed, print)
        last = Recorded()
        execute(last, changed, print)
        assert last.changes == []
        execute(
            Recorded(),
            plan("deploy", make_recipe(tmp_path, text.format("ml.m5.large")), site, Asked()),
            print,
        )


def test_changed_function_gets_a_new_version_behind_the_same_alias(
    service: Service, archive: Path, tmp_path: Path
) -> None:
    site = make_site()
    execute(Recorded(), plan("bootstrap", RECIPE, site, Asked()), say_nothing)
    recipe = make_recipe(tmp_path, "[endpoint.lambda]")
    execute(Recorded(), plan_function(recipe, site, archive=archive), say_nothing)
    newer = archive.with_name("function-ba9876543210.zip")
    newer.write_bytes(archive.read_bytes())

    execute(Recorded(), plan_function(recipe, site, archive=newer), say_nothing)

    functions = boto3.client("lambda", region_name=REGION)
    alias = functions.get_alias(FunctionName="kennel-dogs", Name="live")
    assert alias["FunctionVersion"] == "2"
    assert (
        "function-ba9876543210"
        in functions.get_function(FunctionName="kennel-dogs")["Configuration"]["Description"]
    )


def test_destroy_touches_nothing_without_our_tag(service: Service, aws: Aws, tmp_path: Path) -> None:
    recipe, site = make_recipe(tmp_path, ""), make_site()
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    container = {"Image": site.image("serving-cpu")}
    role = site.role_arn("serving")
    others = {"dogs-mine": [], "dogs-other": [{"Key": RECIPE_TAG, "Value": "dogs-other"}]}
    for name, tags in others.items():
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, Tags=tags)
    ours = [{"Key": RECIPE_TAG, "Value": "dogs"}]
    sagemaker.create_model(ModelName="dogs-1", PrimaryContainer=container, ExecutionRoleArn=role, Tags=ours)

    remove(aws, find_resources(aws, site, recipe), say_nothing)

    assert [model["ModelName"] for model in sagemaker.list_models()["Models"]] == sorted(others)


def test_results_of_a_recipe_with_a_longer_name_stay(service: Service, aws: Aws, tmp_path: Path) -> None:
    from aws.commands import own_objects

    recipe, site = make_recipe(tmp_path, ""), make_site()
    execute(aws, plan("bootstrap", recipe, site, Asked()), say_nothing)
    s3 = boto3.client("s3", region_name=REGION)
    keys = ("jobs/dogs-1a2b3c4d/output/model.tar.gz", "jobs/dogs-1a2b3c4d-001-ff/output/model.tar.gz")
    kept = ("data/dogs/train/a.jpg", "jobs/dogs-big-1a2b3c4d/output/model.tar.gz", "models/dogs-big/x")
    for key in (*keys, *kept):
        s3.put_object(Bucket=site.bucket_name, Key=key, Body=b"x")

    empty_bucket(aws, site, own_objects(recipe, results=True, data=False), say_nothing)

    left = [item["Key"] for item in s3.list_objects_v2(Bucket=site.bucket_name)["Contents"]]
    assert left == sorted(kept)
