"""Each policy allows what its verbs ask for, and no action of it could be taken away.

The requests are recorded on moto, all verbs of a recipe that asks for everything; what moto's accounts never
show (a job still running, a package) is added as the step that would be sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from aws.commands import own_objects
from aws.convergence_rules import RULES
from aws.costs import find_costs
from aws.destroy import empty_bucket, find_shared, remove
from aws.doctor_facts import gather
from aws.execution import Tail, execute
from aws.function import plan_function
from aws.inventory import RUNNING_JOBS, find_resources
from aws.operator_policies import bootstrap_policy, extras_policy, operator_policy
from aws.permissions import Need, needs
from aws.planning import Asked, plan
from aws.policies import Policy, caller_policy, function_policy, policy, serving_policy, training_policy
from aws.site import Site
from tests.integration.aws.moto_service import Service
from tests.integration.aws.test_life_cycle import Recorded, archive, say_nothing
from tests.unit.aws.sites import make_recipe, make_site
from tests.unit.aws.test_plans import EVERYTHING

__all__ = ["archive"]

# moto knows no newer machines, and would want the network made first.
ALL = EVERYTHING.replace("ml.g5.xlarge", "ml.g4dn.xlarge")
ALL = ALL.replace('subnets = ["subnet-0a1b"]', "").replace('security_groups = ["sg-0a1b"]', "")
CHANGED = ALL.replace("capture_percent = 20", "capture_percent = 30")


def allows(document: Policy, need: Need) -> bool:
    """Action and resource, and for a role that is handed on also the service it goes to."""
    action, resource = need
    return any(
        action in found["Action"]
        and any(_matches(pattern, resource) for pattern in found["Resource"])
        and _passes(found.get("Condition", {}), action, resource)
        for found in document["Statement"]
    )


def _matches(pattern: str, resource: str) -> bool:
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), resource))


def _passes(condition: Mapping[str, Any], action: str, resource: str) -> bool:
    if action != "iam:PassRole":
        return True
    purpose = re.sub(r".*/kennel-(\w+).*", r"\1", resource)
    service = {"function": "lambda", "ec2": "ec2"}.get(purpose, "sagemaker")
    return bool(condition["StringEquals"]["iam:PassedToService"] == f"{service}.amazonaws.com")


def needs_of(calls: Iterable[tuple[str, str, Mapping[str, Any]]], site: Site) -> set[Need]:
    """Every permission that some calls take."""
    return {need for call in calls for need in needs(*call, site)}


@pytest.fixture
def operated(service: Service, archive: Path, tmp_path: Path) -> set[Need]:
    """What the operator's verbs need."""
    site, recipe = make_site(), make_recipe(tmp_path, ALL)
    execute(Recorded(), plan("bootstrap", recipe, site, Asked()), say_nothing)
    aws = Recorded()
    for text, code in ((ALL, archive), (CHANGED, archive.with_name("function-1.zip"))):
        code.write_bytes(archive.read_bytes())
        recipe = make_recipe(tmp_path, text)
        for verb in ("train", "tune", "transform", "deploy", "explain", "ec2"):
            execute(aws, plan(verb, recipe, site, Asked()), say_nothing)
        execute(aws, plan_function(recipe, site, archive=code), say_nothing)
    aws.call("sts", "GetCallerIdentity", {})
    gather(aws, site, recipe)
    find_costs(aws, site)
    Tail(group="/aws/sagemaker/TrainingJobs", name="dogs").read(aws)
    remove(aws, find_resources(aws, site, recipe), say_nothing)
    empty_bucket(aws, site, own_objects(recipe, results=True, data=True), say_nothing)
    arn = site.arn("sagemaker", "model-package/dogs/1")
    never_on_moto: list[tuple[str, str, Mapping[str, Any]]] = [
        *(("sagemaker", f"Stop{kind}", {f"{kind}Name": "dogs-1"}) for kind in RUNNING_JOBS),
        *(("sagemaker", f"Describe{kind}", {f"{kind}Name": "dogs-1"}) for kind in RUNNING_JOBS),
        (
            "sagemaker",
            "ListTrainingJobsForHyperParameterTuningJob",
            {"HyperParameterTuningJobName": "dogs-1"},
        ),
        ("sagemaker", "DeleteModelPackage", {"ModelPackageName": arn}),
        ("sagemaker", "InvokeEndpoint", {"EndpointName": "dogs"}),
        ("s3", "DeleteObjects", {"Bucket": site.bucket_name}),
        ("ecr", "BatchGetImage", {"repositoryName": "kennel/training"}),
        ("ecr", "GetDownloadUrlForLayer", {"repositoryName": "kennel/training"}),
        ("iam", "SimulatePrincipalPolicy", {"RoleName": site.role_name("training")}),
        ("iam", "UpdateAssumeRolePolicy", {"RoleName": site.role_name("function-dogs")}),
    ]
    return needs_of([*aws.calls, *never_on_moto], site)


@pytest.fixture
def bootstrapped(service: Service, tmp_path: Path) -> set[Need]:
    """What `bootstrap` and `destroy --bootstrap` need."""
    site, recipe, aws = make_site(), make_recipe(tmp_path, ""), Recorded()
    execute(aws, plan("bootstrap", recipe, site, Asked()), say_nothing)
    aws.call("sts", "GetCallerIdentity", {})
    empty_bucket(aws, site, [""], say_nothing)
    remove(aws, list(find_shared(aws, site)), say_nothing)
    more = [
        ("s3", "DeleteObjects", {"Bucket": site.bucket_name}),
        ("iam", "UpdateAssumeRolePolicy", {"RoleName": site.role_name("training")}),
    ]
    return needs_of([*aws.calls, *more], site)


def without(document: Policy, index: int, action: str) -> Policy:
    """The policy less one action of one statement."""
    found = document["Statement"][index]
    rest = {**found, "Action": [other for other in found["Action"] if other != action]}
    statements = document["Statement"]
    return policy(*statements[:index], rest, *statements[index + 1 :])


def surplus(document: Policy, wanted: set[Need]) -> list[str]:
    """Actions without which everything would still work."""
    return [
        f"{found['Sid']}: {action}"
        for index, found in enumerate(document["Statement"])
        for action in found["Action"]
        if all(allows(without(document, index, action), need) for need in wanted)
    ]


def test_operator_may_do_what_the_verbs_do_and_nothing_more(operated: set[Need]) -> None:
    site = make_site()
    document = policy(*operator_policy(site)["Statement"], *extras_policy(site)["Statement"])

    assert sorted(need for need in operated if not allows(document, need)) == []
    assert surplus(document, operated) == []


def test_bootstrapper_may_do_what_bootstrap_does_and_nothing_more(bootstrapped: set[Need]) -> None:
    document = bootstrap_policy(make_site())

    assert sorted(need for need in bootstrapped if not allows(document, need)) == []
    assert surplus(document, bootstrapped) == []


def test_no_policy_has_a_star_for_an_action(tmp_path: Path) -> None:
    site, recipe = make_site(), make_recipe(tmp_path, EVERYTHING)
    documents = [
        operator_policy(site),
        extras_policy(site),
        bootstrap_policy(site),
        training_policy(site, recipe),
    ]
    documents += [serving_policy(site, recipe), function_policy(site, recipe), caller_policy(site, "dogs")]

    actions = [
        action for document in documents for found in document["Statement"] for action in found["Action"]
    ]

    assert [action for action in actions if "*" in action] == []


def test_function_may_ask_exactly_its_endpoint(tmp_path: Path) -> None:
    site = make_site()
    document = function_policy(site, make_recipe(tmp_path, ""))

    asked = [found for found in document["Statement"] if any("sagemaker" in name for name in found["Action"])]

    assert [(found["Action"], found["Resource"]) for found in asked] == [
        (["sagemaker:InvokeEndpoint"], [site.arn("sagemaker", "endpoint/dogs")])
    ]
    assert not allows(document, ("sagemaker:InvokeEndpoint", site.arn("sagemaker", "endpoint/dogs-2")))
    assert not any("s3" in action for found in document["Statement"] for action in found["Action"])


def test_policies_fit_into_what_iam_stores() -> None:

    site = make_site()
    for document in (operator_policy(site), extras_policy(site), bootstrap_policy(site)):
        assert len(json.dumps(document, separators=(",", ":"))) <= 6144  # a managed policy's characters


def test_every_rule_names_operations_the_service_has() -> None:

    session = botocore.session.get_session()
    for service, operation in RULES:
        assert operation in session.get_service_model(service).operation_names
