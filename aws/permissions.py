"""Which IAM permissions a request needs: (action, resource) pairs, from the request alone.

`doctor` asks IAM to simulate them; a test holds the policies of aws/policies.py against them.
Source: the Service Authorization Reference; most actions are named like their operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws.site import Site

Need = tuple[str, str]

PREFIXES = {
    "resourcegroupstaggingapi": "tag",
    "sagemaker-runtime": "sagemaker",
    "service-quotas": "servicequotas",
}
ACTIONS = {
    ("s3", "HeadBucket"): "s3:ListBucket",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListObjectVersions"): "s3:ListBucketVersions",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "DeleteObjects"): "s3:DeleteObjectVersion",
    ("s3", "GetBucketEncryption"): "s3:GetEncryptionConfiguration",
    ("s3", "PutBucketEncryption"): "s3:PutEncryptionConfiguration",
    ("s3", "GetBucketLifecycleConfiguration"): "s3:GetLifecycleConfiguration",
    ("s3", "PutBucketLifecycleConfiguration"): "s3:PutLifecycleConfiguration",
    ("s3", "GetPublicAccessBlock"): "s3:GetBucketPublicAccessBlock",
    ("s3", "PutPublicAccessBlock"): "s3:PutBucketPublicAccessBlock",
}
# What a request does besides, where it carries tags.
TAGGING = {
    "sagemaker": "sagemaker:AddTags",
    "ecr": "ecr:TagResource",
    "lambda": "lambda:TagResource",
    "logs": "logs:TagResource",
    "cloudwatch": "cloudwatch:TagResource",
}
SAGEMAKER_KINDS = {
    "TrainingJobName": "training-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "TransformJobName": "transform-job",
    "ProcessingJobName": "processing-job",
    "EndpointConfigName": "endpoint-config",
    "ModelPackageGroupName": "model-package-group",
    "ModelPackageName": "model-package",
    "ModelName": "model",
}
SCALING_ROLE = (
    "role/aws-service-role/{}.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_{}"
)


def needs(service: str, operation: str, request: Mapping[str, Any], site: Site) -> list[Need]:
    """Every permission that one call takes."""
    prefix = PREFIXES.get(service, service)
    action = ACTIONS.get((service, operation), f"{prefix}:{operation}")
    resource = resource_arn(service, operation, request, site)
    found = [(action, resource)]
    if service in TAGGING and (request.get("Tags") or request.get("tags")):
        found.append((TAGGING[service], resource))
    if service == "iam" and request.get("Tags"):
        found.append((f"iam:Tag{operation.removeprefix('Create')}", resource))
    roles = (request.get(key) for key in ("RoleArn", "ExecutionRoleArn", "Role"))
    found += [("iam:PassRole", role) for role in roles if role]
    definition = request.get("TrainingJobDefinition", {})
    found += [("iam:PassRole", definition["RoleArn"])] if definition else []
    found += SPECIAL.get((service, operation), lambda request, site: [])(request, site)
    return found


def resource_arn(service: str, operation: str, request: Mapping[str, Any], site: Site) -> str:
    """What the call is about; `*` where IAM knows no resource for it."""
    named = (request.get(key) for key in ("ResourceArn", "ResourceARN", "resourceArn", "Resource"))
    arn = next((value for value in named if isinstance(value, str)), "")
    if arn:
        return f"{arn}:*" if service == "logs" else arn
    builder = RESOURCES.get(service)
    return (builder(operation, request, site) if builder else "") or "*"


def _sagemaker(operation: str, request: Mapping[str, Any], site: Site) -> str:
    if operation.startswith("List"):
        return ""
    if operation in ("CreateEndpointConfig", "DescribeEndpointConfig", "DeleteEndpointConfig"):
        return site.arn("sagemaker", f"endpoint-config/{request['EndpointConfigName']}")
    if "EndpointName" in request:
        return site.arn("sagemaker", f"endpoint/{request['EndpointName'].lower()}")
    for key, kind in SAGEMAKER_KINDS.items():
        if key in request and not (key == "ModelPackageGroupName" and operation == "CreateModelPackage"):
            name = request[key]
            return name if name.startswith("arn:") else site.arn("sagemaker", f"{kind}/{name}")
    if operation == "CreateModelPackage":
        return site.arn("sagemaker", f"model-package/{request['ModelPackageGroupName']}/1")
    return ""


def _iam(operation: str, request: Mapping[str, Any], site: Site) -> str:
    if "PolicySourceArn" in request:
        return str(request["PolicySourceArn"])
    for key, kind in (("InstanceProfileName", "instance-profile"), ("RoleName", "role")):
        if key in request:
            return f"arn:{site.partition}:iam::{site.account_id}:{kind}/{request[key]}"
    return ""


def _s3(operation: str, request: Mapping[str, Any], site: Site) -> str:
    if "Bucket" not in request:
        return ""
    key = f"/{request['Key']}" if "Key" in request else "/*" if operation == "DeleteObjects" else ""
    return f"arn:{site.partition}:s3:::{request['Bucket']}{key}"


def _ecr(operation: str, request: Mapping[str, Any], site: Site) -> str:
    name = request.get("repositoryName") or next(iter(request.get("repositoryNames", [])), "")
    return site.arn("ecr", f"repository/{name}") if name else ""


def _lambda(operation: str, request: Mapping[str, Any], site: Site) -> str:
    if "FunctionName" not in request:
        return ""
    alias = f":{request['Qualifier']}" if "Qualifier" in request else ""
    return site.arn("lambda", f"function:{request['FunctionName']}{alias}")


def _logs(operation: str, request: Mapping[str, Any], site: Site) -> str:
    name = request.get("logGroupName")
    return site.arn("logs", f"log-group:{name}:*") if name else ""


def _cloudwatch(operation: str, request: Mapping[str, Any], site: Site) -> str:
    if operation.startswith("Describe"):
        return ""
    name = request.get("AlarmName") or next(iter(request.get("AlarmNames", [])), "")
    return site.arn("cloudwatch", f"alarm:{name}") if name else ""


def _ec2(operation: str, request: Mapping[str, Any], site: Site) -> str:
    return "" if operation.startswith("Describe") else site.arn("ec2", "instance/*")


RESOURCES: dict[str, Any] = {
    "sagemaker": _sagemaker,
    "sagemaker-runtime": _sagemaker,
    "iam": _iam,
    "s3": _s3,
    "ecr": _ecr,
    "lambda": _lambda,
    "logs": _logs,
    "cloudwatch": _cloudwatch,
    "ec2": _ec2,
}


def _scaling(request: Mapping[str, Any], site: Site) -> list[Need]:
    """Application Auto Scaling acts on the resource with the caller's permissions, and makes its own role."""
    sagemaker = request["ServiceNamespace"] == "sagemaker"
    service, name = ("sagemaker", "SageMakerEndpoint") if sagemaker else ("lambda", "LambdaConcurrency")
    role = f"arn:{site.partition}:iam::{site.account_id}:{SCALING_ROLE.format(service, name)}"
    found = [("iam:CreateServiceLinkedRole", role)]
    if sagemaker:
        endpoint = request["ResourceId"].split("/")[1]
        place = site.arn("sagemaker", f"endpoint/{endpoint}")
        return [
            *found,
            ("sagemaker:DescribeEndpoint", place),
            ("sagemaker:UpdateEndpointWeightsAndCapacities", place),
        ]
    place = site.arn("lambda", ":".join(request["ResourceId"].split(":")))
    return [*found, ("lambda:GetProvisionedConcurrencyConfig", place)]


def _scaling_policy(request: Mapping[str, Any], site: Site) -> list[Need]:
    """A target-tracking policy is two alarms."""
    alarm = site.arn("cloudwatch", f"alarm:TargetTracking-{request['ResourceId']}-AlarmHigh")
    return [("cloudwatch:PutMetricAlarm", alarm)]


def _machines(request: Mapping[str, Any], site: Site) -> list[Need]:
    profile = request["IamInstanceProfile"]["Name"]
    parameter = request["ImageId"].removeprefix("resolve:ssm:")
    return [
        ("iam:PassRole", f"arn:{site.partition}:iam::{site.account_id}:role/{profile}"),
        ("ec2:CreateTags", site.arn("ec2", "instance/*")),
        ("ssm:GetParameters", f"arn:{site.partition}:ssm:{site.region}::parameter{parameter}"),
    ]


SPECIAL: dict[tuple[str, str], Any] = {
    ("application-autoscaling", "RegisterScalableTarget"): _scaling,
    ("application-autoscaling", "PutScalingPolicy"): _scaling_policy,
    ("iam", "AddRoleToInstanceProfile"): lambda request, site: [
        ("iam:PassRole", f"arn:{site.partition}:iam::{site.account_id}:role/{request['RoleName']}")
    ],
    ("ec2", "RunInstances"): _machines,
}
