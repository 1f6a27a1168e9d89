"""How to see whether a step is done already, and what to do where it is done differently. Pure.

For each operation that creates or sets something: the request that shows it, the part of the answer that says
what it is now, in the words of the step's own request, and the steps that change it. A name that comes from
the content (aws/steps.py, content_name) needs no comparison: what is there under it is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from aws.convergence import Answer, Look, Rule, Values
from aws.steps import Step


def _by(operation: str, *keys: str) -> Callable[[Values], Look]:
    """Looks by the same keys as the step's request has."""
    return lambda request: Look(operation=operation, request={key: request[key] for key in keys})


def _part(*keys: str) -> Callable[[Answer, Values], Values | None]:
    """The same keys stand at the top of the answer."""
    return lambda answer, request: {key: answer.get(key) for key in keys}


def _job(kind: str) -> Rule:
    return Rule(look=_by(f"Describe{kind}", f"{kind}Name"))


def _instead(service: str, operation: str, *keys: str) -> Callable[[Step, Answer], list[Step]]:
    """Another operation takes some of the step's keys."""

    def change(step: Step, answer: Answer) -> list[Step]:
        request = {key: step.request[key] for key in keys if key in step.request}
        return [Step(service=service, operation=operation, request=request, wait_for=step.wait_for)]

    return change


# ---- S3


def _tags_found(answer: Answer, request: Values) -> Values:
    return {"Tagging": {"TagSet": answer.get("TagSet", [])}}


def _encryption_found(answer: Answer, request: Values) -> Values:
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    kept = ("ApplyServerSideEncryptionByDefault", "BucketKeyEnabled")
    shown = [{"BucketKeyEnabled": False} | {key: rule[key] for key in kept if key in rule} for rule in rules]
    return {"ServerSideEncryptionConfiguration": {"Rules": shown}}


def _lifecycle_found(answer: Answer, request: Values) -> Values:
    return {"LifecycleConfiguration": {"Rules": answer.get("Rules", [])}}


def _object_found(answer: Answer, request: Values) -> Values:
    """By the checksum it was stored with; by its size where it has none."""
    if "sha256" in request.get("Metadata", {}):
        return {"Metadata": answer.get("Metadata", {})}
    same = isinstance(request["Body"], bytes) and answer.get("ContentLength") == len(request["Body"])
    return {} if same else {"Body": None}


def _policy_text_found(answer: Answer, request: Values) -> Values:
    return {"Policy": answer.get("Policy")}


# ---- IAM


def _role_found(answer: Answer, request: Values) -> Values:
    return {"AssumeRolePolicyDocument": answer["Role"].get("AssumeRolePolicyDocument")}


def _change_trust(step: Step, answer: Answer) -> list[Step]:
    request = {
        "RoleName": step.request["RoleName"],
        "PolicyDocument": step.request["AssumeRolePolicyDocument"],
    }
    return [Step(service="iam", operation="UpdateAssumeRolePolicy", request=request)]


def _profile_role_found(answer: Answer, request: Values) -> Values | None:
    names = [role["RoleName"] for role in answer["InstanceProfile"].get("Roles", [])]
    return {"RoleName": names[0]} if names else None


# ---- SageMaker


def _endpoint_found(answer: Answer, request: Values) -> Values:
    """A failed endpoint is never what was asked for."""
    failed = answer.get("EndpointStatus") in ("Failed", "OutOfService")
    return {"EndpointConfigName": None if failed else answer.get("EndpointConfigName")}


def _change_endpoint(step: Step, answer: Answer) -> list[Step]:
    """Over to the new configuration; a failed one is made anew, since it cannot be updated."""
    name = {"EndpointName": step.request["EndpointName"]}
    if answer.get("EndpointStatus") in ("Failed", "OutOfService"):
        return [Step(service="sagemaker", operation="DeleteEndpoint", request=name), step]
    keys = ("EndpointName", "EndpointConfigName", "DeploymentConfig")
    request = {key: step.request[key] for key in keys if key in step.request}
    return [Step(service="sagemaker", operation="UpdateEndpoint", request=request, wait_for=step.wait_for)]


def _package_found(answer: Answer, request: Values) -> Values | None:
    """Packages have numbers, not names: the same description is the same package."""
    shown = [package.get("ModelPackageDescription") for package in answer["ModelPackageSummaryList"]]
    return {} if request["ModelPackageDescription"] in shown else None


# ---- Scaling


def _look_policies(request: Values) -> Look:
    keys = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    wanted = {key: request[key] for key in keys} | {"PolicyNames": [request["PolicyName"]]}
    return Look(operation="DescribeScalingPolicies", request=wanted)


def _look_targets(request: Values) -> Look:
    wanted = {
        "ServiceNamespace": request["ServiceNamespace"],
        "ResourceIds": [request["ResourceId"]],
        "ScalableDimension": request["ScalableDimension"],
    }
    return Look(operation="DescribeScalableTargets", request=wanted)


def _target_found(answer: Answer, request: Values) -> Values | None:
    targets = answer["ScalableTargets"]
    return {key: targets[0][key] for key in ("MinCapacity", "MaxCapacity")} if targets else None


def _scaling_found(answer: Answer, request: Values) -> Values | None:
    policies = answer["ScalingPolicies"]
    key = "TargetTrackingScalingPolicyConfiguration"
    return {key: policies[0].get(key)} if policies else None


def _alarm_found(answer: Answer, request: Values) -> Values | None:
    """Tags and what the service fills in by itself are left out."""
    alarms = answer["MetricAlarms"]
    if not alarms:
        return None
    return {key: alarms[0].get(key) for key in request if key != "Tags"}


# ---- Lambda and its log

FUNCTION_KEYS = ("Runtime", "Role", "Handler", "Timeout", "MemorySize", "Description")


def _function_found(answer: Answer, request: Values) -> Values:
    """The description names the code's archive, whose name tells its content."""
    found = {key: answer.get(key) for key in FUNCTION_KEYS}
    return found | {"Environment": {"Variables": answer.get("Environment", {}).get("Variables", {})}}


def _change_function(step: Step, answer: Answer) -> list[Step]:
    """Code before configuration: the description, which tells the code, comes last, after a kill too."""
    name = {"FunctionName": step.request["FunctionName"]}
    settled = step.wait_for and dataclasses.replace(
        step.wait_for, state="LastUpdateStatus", done=("Successful",), reason="LastUpdateStatusReason"
    )
    code = {**name, "ZipFile": step.request["Code"]["ZipFile"]}
    configuration = {key: step.request[key] for key in ("FunctionName", *FUNCTION_KEYS, "Environment")}
    return [
        Step(service="lambda", operation="UpdateFunctionCode", request=code, wait_for=settled),
        Step(
            service="lambda",
            operation="UpdateFunctionConfiguration",
            request=configuration,
            wait_for=settled,
        ),
    ]


def _version_found(answer: Answer, request: Values) -> Values | None:
    return {} if _same_version(answer, request) else None


def _same_version(answer: Answer, request: Values) -> Values:
    versions = [version for version in answer["Versions"] if version["Version"] != "$LATEST"]
    same = (version for version in versions if version.get("Description") == request["Description"])
    return next(same, {})


def _log_group_found(answer: Answer, request: Values) -> Values | None:
    groups = [group for group in answer["logGroups"] if group["logGroupName"] == request["logGroupName"]]
    if not groups:
        return None
    return {key: groups[0].get(key) for key in request if key == "retentionInDays"}


def _look_log_group(request: Values) -> Look:
    return Look(operation="DescribeLogGroups", request={"logGroupNamePrefix": request["logGroupName"]})


def _warm_found(answer: Answer, request: Values) -> Values:
    """Scaling may have changed the number since; only a failed request is made again."""
    return {"Qualifier": None} if answer.get("Status") == "FAILED" else {}


# ---- EC2


def _look_machines(request: Values) -> Look:
    filters = {"tag:Name": request["ClientToken"], "instance-state-name": ["pending", "running", "stopping"]}
    shown = [
        {"Name": key, "Values": value if isinstance(value, list) else [value]}
        for key, value in filters.items()
    ]
    return Look(operation="DescribeInstances", request={"Filters": shown})


RULES: dict[tuple[str, str], Rule] = {
    ("s3", "CreateBucket"): Rule(look=_by("HeadBucket", "Bucket")),
    ("s3", "PutBucketTagging"): Rule(look=_by("GetBucketTagging", "Bucket"), found=_tags_found),
    ("s3", "PutPublicAccessBlock"): Rule(
        look=_by("GetPublicAccessBlock", "Bucket"), found=_part("PublicAccessBlockConfiguration")
    ),
    ("s3", "PutBucketEncryption"): Rule(look=_by("GetBucketEncryption", "Bucket"), found=_encryption_found),
    ("s3", "PutBucketVersioning"): Rule(
        look=_by("GetBucketVersioning", "Bucket"),
        found=lambda answer, request: {"VersioningConfiguration": {"Status": answer.get("Status")}},
    ),
    ("s3", "PutBucketPolicy"): Rule(look=_by("GetBucketPolicy", "Bucket"), found=_policy_text_found),
    ("s3", "PutBucketLifecycleConfiguration"): Rule(
        look=_by("GetBucketLifecycleConfiguration", "Bucket"), found=_lifecycle_found
    ),
    ("s3", "PutObject"): Rule(look=_by("HeadObject", "Bucket", "Key"), found=_object_found),
    ("ecr", "CreateRepository"): Rule(
        look=lambda request: Look(
            operation="DescribeRepositories", request={"repositoryNames": [request["repositoryName"]]}
        )
    ),
    ("ecr", "PutLifecyclePolicy"): Rule(
        look=_by("GetLifecyclePolicy", "repositoryName"), found=_part("lifecyclePolicyText")
    ),
    ("iam", "CreateRole"): Rule(look=_by("GetRole", "RoleName"), found=_role_found, change=_change_trust),
    ("iam", "PutRolePolicy"): Rule(
        look=_by("GetRolePolicy", "RoleName", "PolicyName"), found=_part("PolicyDocument")
    ),
    ("iam", "CreateInstanceProfile"): Rule(look=_by("GetInstanceProfile", "InstanceProfileName")),
    ("iam", "AddRoleToInstanceProfile"): Rule(
        look=_by("GetInstanceProfile", "InstanceProfileName"), found=_profile_role_found
    ),
    ("sagemaker", "CreateTrainingJob"): _job("TrainingJob"),
    ("sagemaker", "CreateHyperParameterTuningJob"): _job("HyperParameterTuningJob"),
    ("sagemaker", "CreateTransformJob"): _job("TransformJob"),
    ("sagemaker", "CreateProcessingJob"): _job("ProcessingJob"),
    ("sagemaker", "CreateModel"): _job("Model"),
    ("sagemaker", "CreateEndpointConfig"): _job("EndpointConfig"),
    ("sagemaker", "CreateEndpoint"): Rule(
        look=_by("DescribeEndpoint", "EndpointName"), found=_endpoint_found, change=_change_endpoint
    ),
    ("sagemaker", "CreateModelPackageGroup"): _job("ModelPackageGroup"),
    ("sagemaker", "CreateModelPackage"): Rule(
        look=_by("ListModelPackages", "ModelPackageGroupName"), found=_package_found
    ),
    ("application-autoscaling", "RegisterScalableTarget"): Rule(look=_look_targets, found=_target_found),
    ("application-autoscaling", "PutScalingPolicy"): Rule(look=_look_policies, found=_scaling_found),
    ("cloudwatch", "PutMetricAlarm"): Rule(
        look=lambda request: Look(operation="DescribeAlarms", request={"AlarmNames": [request["AlarmName"]]}),
        found=_alarm_found,
    ),
    ("lambda", "CreateFunction"): Rule(
        look=_by("GetFunctionConfiguration", "FunctionName"), found=_function_found, change=_change_function
    ),
    ("lambda", "PublishVersion"): Rule(
        look=_by("ListVersionsByFunction", "FunctionName"), found=_version_found, answer=_same_version
    ),
    ("lambda", "CreateAlias"): Rule(
        look=_by("GetAlias", "FunctionName", "Name"),
        found=_part("FunctionVersion"),
        change=_instead("lambda", "UpdateAlias", "FunctionName", "Name", "FunctionVersion"),
    ),
    ("lambda", "PutProvisionedConcurrencyConfig"): Rule(
        look=_by("GetProvisionedConcurrencyConfig", "FunctionName", "Qualifier"), found=_warm_found
    ),
    ("logs", "CreateLogGroup"): Rule(look=_look_log_group, found=_log_group_found),
    ("logs", "PutRetentionPolicy"): Rule(look=_look_log_group, found=_log_group_found),
    ("ec2", "RunInstances"): Rule(
        look=_look_machines, found=lambda answer, request: {} if answer["Reservations"] else None
    ),
}
