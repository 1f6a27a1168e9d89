"""What the people who run `python -m aws` may do: one policy for bootstrap, two for what follows.

A test holds them against the permissions that every planned and every recorded request needs
(aws/permissions.py): none is missing, and none could be taken away.
"""

from __future__ import annotations

from collections.abc import Callable

from aws.permissions import SCALING_ROLE
from aws.policies import (
    Policy,
    Statement,
    caller_policy,
    function_policy,
    machine_policy,
    policy,
    push_policy,
    repository_arns,
    serving_policy,
    statement,
    training_policy,
)
from aws.site import IMAGES, PROJECT, Site
from training.recipe import Recipe

JOB_KINDS = {
    "TrainingJob": "training-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "TransformJob": "transform-job",
    "ProcessingJob": "processing-job",
}
HOSTING_KINDS = {"Model": "model", "EndpointConfig": "endpoint-config", "Endpoint": "endpoint"}
REGISTRY_KINDS = {"ModelPackageGroup": "model-package-group", "ModelPackage": "model-package"}

REPOSITORY_ACTIONS = (
    "CreateRepository",
    "DeleteRepository",
    "DescribeRepositories",
    "GetLifecyclePolicy",
    "ListTagsForResource",
    "PutLifecyclePolicy",
    "TagResource",
)
ROLE_ACTIONS = (
    "CreateRole",
    "DeleteRole",
    "DeleteRolePolicy",
    "GetRole",
    "GetRolePolicy",
    "PutRolePolicy",
    "TagRole",
    "UpdateAssumeRolePolicy",
)


def bootstrap_policy(site: Site) -> Policy:
    """`bootstrap`, and `destroy --bootstrap`: bucket, repositories, and the two roles, by their names."""
    settings: tuple[str, ...] = (
        "EncryptionConfiguration",
        "LifecycleConfiguration",
        "BucketPublicAccessBlock",
        "BucketPolicy",
    )
    settings += ("BucketTagging", "BucketVersioning")
    bucket = ["s3:CreateBucket", "s3:ListBucket", "s3:ListBucketVersions", "s3:DeleteBucket"]
    return policy(
        statement("WhoAmI", ["sts:GetCallerIdentity"], "*"),
        statement(
            "Bucket",
            [*bucket, *(f"s3:{verb}{name}" for verb in ("Get", "Put") for name in settings)],
            site.bucket_arn(),
        ),
        statement("EmptyBucket", ["s3:DeleteObjectVersion"], site.bucket_arn("*")),
        statement(
            "Repositories",
            [f"ecr:{name}" for name in REPOSITORY_ACTIONS],
            repository_arns(site, IMAGES),
        ),
        statement(
            "Roles",
            [f"iam:{name}" for name in ROLE_ACTIONS],
            [site.role_arn("training"), site.role_arn("serving")],
        ),
    )


def operator_policy(site: Site) -> Policy:
    """Jobs, endpoints, their scaling, and every verb that looks."""
    return policy(*_sagemaker(site), *_bucket(site), *_shared_roles(site), *_scaling(site), *_looking(site))


def extras_policy(site: Site) -> Policy:
    """`function`, `ec2` and `explain`, which make roles: Kennel's by name, each for one service.

    Apart from the operator's because a managed policy holds 6144 characters.
    """
    return policy(*_own_roles(site), *_function(site), *_machines(site))


def _sagemaker(site: Site) -> list[Statement]:
    def arns(kinds: dict[str, str]) -> list[str]:
        return [site.arn("sagemaker", f"{kind}/*") for kind in kinds.values()]

    jobs = [f"sagemaker:{verb}{name}" for verb in ("Create", "Describe", "Stop") for name in JOB_KINDS]
    hosting = [
        f"sagemaker:{verb}{name}" for verb in ("Create", "Describe", "Delete") for name in HOSTING_KINDS
    ]
    update = ["sagemaker:UpdateEndpoint", "sagemaker:UpdateEndpointWeightsAndCapacities"]
    registry = ["CreateModelPackageGroup", "DescribeModelPackageGroup", "DeleteModelPackageGroup"]
    registry += ["CreateModelPackage", "DeleteModelPackage"]
    tagged = arns(JOB_KINDS | HOSTING_KINDS | REGISTRY_KINDS)
    listed: tuple[str, ...] = (
        "Endpoints",
        "EndpointConfigs",
        "Models",
        "ModelPackageGroups",
        "ModelPackages",
        "TrainingJobsForHyperParameterTuningJob",
    )
    listed += tuple(f"{name}s" for name in JOB_KINDS)
    return [
        statement("Jobs", jobs, arns(JOB_KINDS)),
        statement("Hosting", hosting, arns(HOSTING_KINDS)),
        statement("Endpoints", [*update, "sagemaker:InvokeEndpoint"], site.arn("sagemaker", "endpoint/*")),
        statement("Registry", [f"sagemaker:{name}" for name in registry], arns(REGISTRY_KINDS)),
        statement("Tags", ["sagemaker:AddTags", "sagemaker:ListTags"], tagged),
        statement("ListSageMaker", [f"sagemaker:List{name}" for name in listed], "*"),
    ]


def _bucket(site: Site) -> list[Statement]:
    return [
        statement(
            "ListBucket", ["s3:GetBucketTagging", "s3:ListBucket", "s3:ListBucketVersions"], site.bucket_arn()
        ),
        statement(
            "ReadAndWrite", ["s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject"], site.bucket_arn("*")
        ),
    ]


def _shared_roles(site: Site) -> list[Statement]:
    shared = [site.role_arn("training"), site.role_arn("serving")]
    return [
        statement("LookAtRoles", ["iam:GetRole", "iam:SimulatePrincipalPolicy"], shared),
        statement("PassToSageMaker", ["iam:PassRole"], shared, _passed_to("sagemaker")),
    ]


def _own_roles(site: Site) -> list[Statement]:
    prefix = f"arn:{site.partition}:iam::{site.account_id}"
    made_for = {"lambda": "function", "ec2": "ec2", "sagemaker": "explain"}
    own = {service: f"{prefix}:role/{PROJECT}-{purpose}-*" for service, purpose in made_for.items()}
    role: tuple[str, ...] = ("CreateRole", "DeleteRole", "DeleteRolePolicy", "GetRole", "GetRolePolicy")
    role += ("PutRolePolicy", "TagRole", "UpdateAssumeRolePolicy")
    profile: tuple[str, ...] = ("CreateInstanceProfile", "DeleteInstanceProfile", "GetInstanceProfile")
    profile += ("TagInstanceProfile", "AddRoleToInstanceProfile", "RemoveRoleFromInstanceProfile")
    profiles = f"{prefix}:instance-profile/{PROJECT}-ec2-*"
    return [
        statement("Roles", [f"iam:{name}" for name in role], list(own.values())),
        statement("Profiles", [f"iam:{name}" for name in profile], profiles),
        *(
            statement(f"PassTo{service.capitalize()}", ["iam:PassRole"], arn, _passed_to(service))
            for service, arn in own.items()
        ),
    ]


def _passed_to(service: str) -> dict[str, dict[str, str]]:
    return {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}


def _function(site: Site) -> list[Statement]:
    names: tuple[str, ...] = (
        "CreateFunction",
        "GetFunctionConfiguration",
        "UpdateFunctionCode",
        "UpdateFunctionConfiguration",
    )
    names += ("PublishVersion", "ListVersionsByFunction", "CreateAlias", "GetAlias", "UpdateAlias")
    names += ("PutProvisionedConcurrencyConfig", "GetProvisionedConcurrencyConfig", "DeleteFunction")
    names += ("TagResource", "ListTags")
    logs: tuple[str, ...] = (
        "CreateLogGroup",
        "DeleteLogGroup",
        "ListTagsForResource",
        "PutRetentionPolicy",
        "TagResource",
    )
    own_function = site.arn("lambda", f"function:{PROJECT}-*")
    own_log = site.arn("logs", f"log-group:/aws/lambda/{PROJECT}-*")
    return [
        statement("Function", [f"lambda:{name}" for name in names], own_function),
        statement("FunctionLog", [f"logs:{name}" for name in logs], own_log),
    ]


def _scaling(site: Site) -> list[Statement]:
    names: tuple[str, ...] = ("RegisterScalableTarget", "DeregisterScalableTarget", "DescribeScalableTargets")
    names += ("PutScalingPolicy", "DeleteScalingPolicy", "DescribeScalingPolicies")
    alarms = [site.arn("cloudwatch", "alarm:TargetTracking-*"), site.arn("cloudwatch", f"alarm:{PROJECT}-*")]
    linked = {"sagemaker": "SageMakerEndpoint", "lambda": "LambdaConcurrency"}
    return [
        statement("Scaling", [f"application-autoscaling:{name}" for name in names], "*"),
        statement("Alarms", ["cloudwatch:PutMetricAlarm"], alarms),
        statement(
            "OwnAlarms",
            ["cloudwatch:DeleteAlarms", "cloudwatch:ListTagsForResource", "cloudwatch:TagResource"],
            alarms[1],
        ),
        *(
            statement(
                f"{name}Role",
                ["iam:CreateServiceLinkedRole"],
                f"arn:{site.partition}:iam::{site.account_id}:{SCALING_ROLE.format(service, name)}",
                {"StringLike": {"iam:AWSServiceName": f"{service}.application-autoscaling.amazonaws.com"}},
            )
            for service, name in linked.items()
        ),
    ]


def _machines(site: Site) -> list[Statement]:
    kinds = ("instance", "volume", "network-interface", "subnet", "security-group")
    places = [site.arn("ec2", f"{kind}/*") for kind in kinds]
    images = f"arn:{site.partition}:ec2:{site.region}::image/*"
    started = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    tagged = {"StringLike": {"ec2:ResourceTag/kennel:recipe": "*"}}
    return [
        statement("Start", ["ec2:RunInstances"], [*places, images]),
        statement("TagAtStart", ["ec2:CreateTags"], places[:2], started),
        statement("End", ["ec2:TerminateInstances"], places[0], tagged),
        statement(
            "FindImage",
            ["ssm:GetParameters"],
            f"arn:{site.partition}:ssm:{site.region}::parameter/aws/service/*",
        ),
    ]


def _looking(site: Site) -> list[Statement]:
    """What has no resource to name."""
    log = site.arn("logs", "log-group:/aws/*")
    actions = ["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricStatistics", "ec2:DescribeInstances"]
    actions += ["logs:DescribeLogGroups", "servicequotas:ListServiceQuotas", "sts:GetCallerIdentity"]
    return [
        statement("Logs", ["logs:FilterLogEvents"], log),
        statement("Look", actions, "*"),
        statement(
            "Images", ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], repository_arns(site, IMAGES)
        ),
    ]


POLICIES: dict[str, Callable[[Site, Recipe | None], Policy]] = {
    "bootstrap": lambda site, recipe: bootstrap_policy(site),
    "operator": lambda site, recipe: operator_policy(site),
    "extras": lambda site, recipe: extras_policy(site),
    "push": lambda site, recipe: push_policy(site),
    "training": training_policy,
    "serving": serving_policy,
    "ec2": lambda site, recipe: machine_policy(site),
    "caller": lambda site, recipe: caller_policy(site, (recipe or Recipe(name="RECIPE")).name),
    "function": lambda site, recipe: function_policy(site, recipe or Recipe(name="RECIPE")),
}
