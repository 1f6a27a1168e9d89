"""Who may do what: one pure function for each role, resources named, no `*` among the actions.

Sources: Developer Guide "sagemaker-roles" and "endpoint-auto-scaling-prerequisites", ECR "image-push-iam".
`ecr:GetAuthorizationToken` and the network interfaces of a VPC cannot be limited to a resource. The policies
of those who run `python -m aws` are in `aws/operator_policies.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws.site import IMAGES, PROJECT, Site, function_name
from training.recipe import Recipe

Policy = dict[str, Any]
Statement = dict[str, Any]

PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
PUSH = ("ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart")
PUSH_SETUP = ("ecr:CreateRepository", "ecr:DescribeRepositories", "ecr:PutLifecyclePolicy")


def statement(
    name: str, actions: Sequence[str], resources: str | Sequence[str], condition: dict[str, Any] | None = None
) -> Statement:
    """One Allow."""
    listed = [resources] if isinstance(resources, str) else list(resources)
    built = {"Sid": name, "Effect": "Allow", "Action": sorted(actions), "Resource": listed}
    return built | ({"Condition": condition} if condition else {})


def policy(*statements: Statement) -> Policy:
    """A whole document."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def trust_policy(service: str, site: Site) -> Policy:
    """Only this service, and for SageMaker only on behalf of this account: no confused deputy.

    Lambda and EC2 send no source when they assume an execution role, so a condition would lock them out.
    """
    allowed: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    if service == "sagemaker":
        allowed["Condition"] = {
            "StringEquals": {"aws:SourceAccount": site.account_id},
            "ArnLike": {"aws:SourceArn": site.arn("sagemaker", "*")},
        }
    return policy(allowed)


def training_policy(site: Site, recipe: Recipe | None = None) -> Policy:
    """A training job's: its image, its data, its results, its log; VPC and key where the recipe has them."""
    return policy(*_train_from_bucket(site), *_job_logs(site), *_network_and_key(site, recipe))


READ_BY_TRAINING = ("data", "weights", "checkpoints", "jobs")
WRITTEN_BY_TRAINING = ("jobs", "checkpoints")


def serving_policy(site: Site, recipe: Recipe | None = None) -> Policy:
    """A model's, in endpoints and transform jobs: images, artifacts, what is asked and answered."""
    read = ("data", "jobs", "models", "async")
    written = ("transforms", "capture", "async")
    return policy(
        *_pull(site, ["serving-cpu", "serving-gpu"]),
        statement("ListBucket", ["s3:ListBucket"], site.bucket_arn()),
        statement("ReadModels", ["s3:GetObject"], [site.bucket_arn(f"{key}/*") for key in read]),
        statement("WriteAnswers", ["s3:PutObject"], [site.bucket_arn(f"{key}/*") for key in written]),
        *_job_logs(site),
        *_network_and_key(site, recipe),
    )


def caller_policy(site: Site, endpoint: str) -> Policy:
    """Whoever asks one endpoint and nothing else. Endpoint ARNs are lower case."""
    resource = site.arn("sagemaker", f"endpoint/{endpoint.lower()}")
    return policy(statement("Ask", ["sagemaker:InvokeEndpoint"], resource))


def function_policy(site: Site, recipe: Recipe) -> Policy:
    """The Lambda function's: that endpoint, its own log, and the S3 folders that the recipe allows."""
    log = site.arn("logs", f"log-group:/aws/lambda/{function_name(recipe)}:*")
    statements = [
        *caller_policy(site, recipe.name)["Statement"],
        statement("WriteLog", ["logs:CreateLogStream", "logs:PutLogEvents"], log),
    ]
    function = recipe.endpoint.lambda_function if recipe.endpoint else None
    if function and function.allow_s3:
        arns = [
            f"arn:{site.partition}:s3:::{uri.removeprefix('s3://').rstrip('*')}*" for uri in function.allow_s3
        ]
        statements.append(statement("ReadPictures", ["s3:GetObject"], arns))
    return policy(*statements)


def machine_policy(site: Site) -> Policy:
    """An EC2 instance that trains: a training job's, without the service's log and metrics."""
    return policy(*_train_from_bucket(site))


def explain_policy(site: Site, recipe: Recipe) -> Policy:
    """A Clarify job's: it makes an endpoint of its own for the model, asks it, and removes it."""
    own = site.arn("sagemaker", "endpoint/sm-clarify*"), site.arn("sagemaker", "endpoint-config/sm-clarify*")
    verbs = ("Create", "Describe", "Delete")
    actions = [f"sagemaker:{verb}{kind}" for verb in verbs for kind in ("Endpoint", "EndpointConfig")]
    model = site.arn("sagemaker", f"model/{recipe.name}-*")
    return policy(
        statement("AskOwnEndpoint", [*actions, "sagemaker:AddTags", "sagemaker:InvokeEndpoint"], own),
        statement("FindModel", ["sagemaker:DescribeModel", "sagemaker:CreateEndpointConfig"], model),
        statement("ListBucket", ["s3:ListBucket"], site.bucket_arn()),
        statement(
            "ReadPictures", ["s3:GetObject"], [site.bucket_arn(f"{key}/*") for key in ("data", "explain")]
        ),
        statement("WriteResults", ["s3:PutObject"], site.bucket_arn("explain/*")),
        *_job_logs(site),
        *_network_and_key(site, recipe),
    )


def push_policy(site: Site) -> Policy:
    """./build_and_push.sh push: makes the three repositories and fills them."""
    return policy(
        *_pull(site, IMAGES),
        statement("Push", [*PUSH, *PUSH_SETUP], repository_arns(site, IMAGES)),
    )


def repository_arns(site: Site, images: Sequence[str]) -> list[str]:
    """Of ECR repositories."""
    return [site.arn("ecr", f"repository/{PROJECT}/{image}") for image in images]


def _pull(site: Site, images: Sequence[str]) -> list[Statement]:
    return [
        statement("LogInToEcr", ["ecr:GetAuthorizationToken"], "*"),
        statement("Pull", PULL, repository_arns(site, images)),
    ]


def _train_from_bucket(site: Site) -> list[Statement]:
    read, written = (
        [site.bucket_arn(f"{key}/*") for key in keys] for keys in (READ_BY_TRAINING, WRITTEN_BY_TRAINING)
    )
    return [
        *_pull(site, ["training"]),
        statement("ListBucket", ["s3:ListBucket"], site.bucket_arn()),
        statement("ReadData", ["s3:GetObject"], read),
        statement("WriteResults", ["s3:PutObject"], written),
        # A checkpoint that the trainer removes is removed from the bucket too.
        statement("RemoveCheckpoints", ["s3:DeleteObject"], site.bucket_arn("checkpoints/*")),
    ]


def _job_logs(site: Site) -> list[Statement]:
    group = site.arn("logs", "log-group:/aws/sagemaker/*")
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    only_own = {"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "AWS/SageMaker"]}}
    return [
        statement("WriteLogs", actions, group),
        statement("WriteMetrics", ["cloudwatch:PutMetricData"], "*", only_own),
    ]


def _network_and_key(site: Site, recipe: Recipe | None) -> list[Statement]:
    if recipe is None:
        return []
    statements = []
    if recipe.aws.subnets:
        changing = ["CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface"]
        changing += ["DeleteNetworkInterfacePermission"]
        looking = ["DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs"]
        actions = [f"ec2:{name}" for name in changing] + [f"ec2:Describe{name}" for name in looking]
        statements.append(statement("JoinVpc", actions, "*"))
    if recipe.aws.kms_key:
        key = recipe.aws.kms_key
        arn = key if key.startswith("arn:") else site.arn("kms", key if "/" in key else f"key/{key}")
        actions = ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
        statements.append(statement("UseKey", actions, arn))
    return statements
