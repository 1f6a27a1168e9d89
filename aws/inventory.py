"""What is there on AWS with our tag, and the requests that remove each piece, dependants first.

Names only help to look in the right places; whether a resource is a recipe's is decided by its tag alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aws import ec2, explain, function
from aws.autoscaling import ALIAS, ENDPOINT_DIMENSION, FUNCTION_DIMENSION, plan_removal
from aws.client import Aws
from aws.convergence import is_absent
from aws.errors import AwsError
from aws.site import RECIPE_TAG, Site, function_name
from aws.steps import Step
from training.recipe import Recipe

RUNNING_JOBS = {
    "TrainingJob": "TrainingJobSummaries",
    "HyperParameterTuningJob": "HyperParameterTuningJobSummaries",
    "TransformJob": "TransformJobSummaries",
    "ProcessingJob": "ProcessingJobSummaries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing of ours."""

    kind: str
    name: str
    state: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    removal: tuple[Step, ...] = ()


def find_resources(aws: Aws, site: Site, recipe: Recipe) -> list[Resource]:
    """Everything with the recipe's tag, in the order in which it can be removed."""
    return [resource for find in FINDERS for resource in find(aws, site, recipe) if is_ours(resource, recipe)]


def is_ours(resource: Resource, recipe: Recipe) -> bool:
    """The tag says so. Nothing without it is ever shown as ours, or removed."""
    return resource.tags.get(RECIPE_TAG) == recipe.name


def ask(aws: Aws, service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer, or None where there is no such thing."""
    try:
        return aws.call(service, operation, request)
    except AwsError as error:
        if is_absent(error):
            return None
        raise


def sagemaker_tags(aws: Aws, arn: str) -> dict[str, str]:
    """Of any SageMaker resource."""
    tags: dict[str, str] = {}
    for page in aws.pages("sagemaker", "ListTags", {"ResourceArn": arn}):
        tags |= plain_tags(page["Tags"])
    return tags


def plain_tags(tags: list[dict[str, str]]) -> dict[str, str]:
    """[{"Key", "Value"}] -> a mapping."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def removes(service: str, operation: str, **request: Any) -> Step:
    """A step that takes something away."""
    return Step(service=service, operation=operation, request=request)


def find_endpoints(aws: Aws, site: Site, recipe: Recipe | None) -> Iterator[Resource]:
    """Endpoints, their scaling first; without a recipe all that carry a recipe's tag."""
    wanted = {"NameContains": recipe.name} if recipe else {}
    for page in aws.pages("sagemaker", "ListEndpoints", wanted):
        for summary in page["Endpoints"]:
            name = summary["EndpointName"]
            tags = sagemaker_tags(aws, summary["EndpointArn"])
            if RECIPE_TAG not in tags:
                continue
            shown = ask(aws, "sagemaker", "DescribeEndpoint", {"EndpointName": name})
            if shown is None:
                continue
            yield Resource(
                kind="endpoint",
                name=name,
                state=shown["EndpointStatus"],
                tags=tags,
                details=shown,
                removal=(
                    *find_scaling(aws, "sagemaker", f"endpoint/{name}/variant/", ENDPOINT_DIMENSION),
                    removes("sagemaker", "DeleteEndpoint", EndpointName=name),
                ),
            )


def find_scaling(aws: Aws, namespace: str, prefix: str, dimension: str) -> list[Step]:
    """What takes policies and targets away from what the prefix names."""
    place = {"ServiceNamespace": namespace, "ScalableDimension": dimension}
    service = "application-autoscaling"
    resources = [
        target["ResourceId"]
        for page in aws.pages(service, "DescribeScalableTargets", place)
        for target in page["ScalableTargets"]
        if target["ResourceId"].startswith(prefix)
    ]
    steps = []
    for resource in resources:
        answer = aws.call(service, "DescribeScalingPolicies", {**place, "ResourceId": resource})
        names = [policy["PolicyName"] for policy in answer["ScalingPolicies"]]
        steps += plan_removal(namespace, resource, dimension, names)
    return steps


def _listed(kind: str, listing: str, key: str) -> Callable[[Aws, Site, Recipe], Iterator[Resource]]:
    """SageMaker's things without a state: List, ListTags, Delete."""

    def find(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
        for page in aws.pages("sagemaker", f"List{kind}s", {"NameContains": recipe.name}):
            for summary in page[listing]:
                name = summary[f"{kind}Name"]
                delete = removes("sagemaker", f"Delete{kind}", **{f"{kind}Name": name})
                tags = sagemaker_tags(aws, summary[key])
                yield Resource(kind=kind, name=name, tags=tags, removal=(delete,))

    return find


def find_packages(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """Packages before their group."""
    for page in aws.pages("sagemaker", "ListModelPackageGroups", {"NameContains": recipe.name}):
        for group in page["ModelPackageGroupSummaryList"]:
            name = group["ModelPackageGroupName"]
            packages = [
                package["ModelPackageArn"]
                for part in aws.pages("sagemaker", "ListModelPackages", {"ModelPackageGroupName": name})
                for package in part["ModelPackageSummaryList"]
            ]
            yield Resource(
                kind="ModelPackageGroup",
                name=name,
                tags=sagemaker_tags(aws, group["ModelPackageGroupArn"]),
                removal=(
                    *(removes("sagemaker", "DeleteModelPackage", ModelPackageName=arn) for arn in packages),
                    removes("sagemaker", "DeleteModelPackageGroup", ModelPackageGroupName=name),
                ),
            )


def find_jobs(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """Jobs that run. Ended ones cost nothing, and the service keeps them for ever."""
    for kind, listing in RUNNING_JOBS.items():
        wanted = {"NameContains": recipe.name, "StatusEquals": "InProgress"}
        for page in aws.pages("sagemaker", f"List{kind}s", wanted):
            for summary in page[listing]:
                name = summary[f"{kind}Name"]
                yield Resource(
                    kind=kind,
                    name=name,
                    state=summary.get(f"{kind}Status", ""),
                    tags=sagemaker_tags(aws, summary[f"{kind}Arn"]),
                    removal=(removes("sagemaker", f"Stop{kind}", **{f"{kind}Name": name}),),
                )


def find_function(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """The Lambda function, its scaling first, and its log."""
    name = function_name(recipe)
    shown = ask(aws, "lambda", "GetFunctionConfiguration", {"FunctionName": name})
    if shown:
        tags = aws.call("lambda", "ListTags", {"Resource": shown["FunctionArn"]}).get("Tags", {})
        scaling = find_scaling(aws, "lambda", f"function:{name}:{ALIAS}", FUNCTION_DIMENSION)
        delete = removes("lambda", "DeleteFunction", FunctionName=name)
        yield Resource(
            kind="function", name=name, state=shown.get("State", ""), tags=tags, removal=(*scaling, delete)
        )
    group = f"/aws/lambda/{name}"
    for page in aws.pages("logs", "DescribeLogGroups", {"logGroupNamePrefix": group}):
        for found in page["logGroups"]:
            arn = found["arn"].removesuffix(":*")
            tags = aws.call("logs", "ListTagsForResource", {"resourceArn": arn}).get("tags", {})
            delete = removes("logs", "DeleteLogGroup", logGroupName=found["logGroupName"])
            yield Resource(kind="log", name=found["logGroupName"], tags=tags, removal=(delete,))


def find_alarms(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """The alarms that guard an update."""
    for page in aws.pages("cloudwatch", "DescribeAlarms", {"AlarmNamePrefix": f"kennel-{recipe.name}-"}):
        for alarm in page["MetricAlarms"]:
            answer = aws.call("cloudwatch", "ListTagsForResource", {"ResourceARN": alarm["AlarmArn"]})
            delete = removes("cloudwatch", "DeleteAlarms", AlarmNames=[alarm["AlarmName"]])
            yield Resource(
                kind="alarm",
                name=alarm["AlarmName"],
                state=alarm.get("StateValue", ""),
                tags=plain_tags(answer["Tags"]),
                removal=(delete,),
            )


def find_machines(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """EC2 machines that train."""
    filters = [
        {"Name": f"tag:{RECIPE_TAG}", "Values": [recipe.name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    for page in aws.pages("ec2", "DescribeInstances", {"Filters": filters}):
        for reservation in page["Reservations"]:
            for machine in reservation["Instances"]:
                name = machine["InstanceId"]
                yield Resource(
                    kind="machine",
                    name=name,
                    state=machine["State"]["Name"],
                    tags=plain_tags(machine["Tags"]),
                    details=machine,
                    removal=(removes("ec2", "TerminateInstances", InstanceIds=[name]),),
                )


def find_roles(aws: Aws, site: Site, recipe: Recipe) -> Iterator[Resource]:
    """The recipe's own roles; an instance profile before the role inside it."""
    purposes = (function.role_purpose(recipe), explain.role_purpose(recipe), ec2.role_purpose(recipe))
    profile = ask(
        aws, "iam", "GetInstanceProfile", {"InstanceProfileName": site.role_name(ec2.role_purpose(recipe))}
    )
    if profile:
        found = profile["InstanceProfile"]
        name = found["InstanceProfileName"]
        emptied = (
            removes(
                "iam", "RemoveRoleFromInstanceProfile", InstanceProfileName=name, RoleName=role["RoleName"]
            )
            for role in found["Roles"]
        )
        yield Resource(
            kind="instance profile",
            name=name,
            tags=plain_tags(found.get("Tags", [])),
            removal=(*emptied, removes("iam", "DeleteInstanceProfile", InstanceProfileName=name)),
        )
    for purpose in purposes:
        yield from find_role(aws, site.role_name(purpose))


def find_role(aws: Aws, name: str) -> Iterator[Resource]:
    """A role and its one inline policy."""
    role = ask(aws, "iam", "GetRole", {"RoleName": name})
    if role:
        yield Resource(
            kind="role",
            name=name,
            tags=plain_tags(role["Role"].get("Tags", [])),
            removal=(
                removes("iam", "DeleteRolePolicy", RoleName=name, PolicyName="kennel"),
                removes("iam", "DeleteRole", RoleName=name),
            ),
        )


FINDERS: tuple[Callable[[Aws, Site, Recipe], Iterator[Resource]], ...] = (
    find_jobs,
    find_machines,
    find_endpoints,
    _listed("EndpointConfig", "EndpointConfigs", "EndpointConfigArn"),
    _listed("Model", "Models", "ModelArn"),
    find_packages,
    find_function,
    find_alarms,
    find_roles,
)
