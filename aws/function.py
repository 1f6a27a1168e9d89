"""The Lambda function that asks the endpoint on behalf of clients without AWS credentials.

Its code is one standalone file (aws/lambda_function/handler.py) and a pinned Pillow; boto3 comes with the
runtime. `aws/function_zip.py` makes the archive, whose name tells its content.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aws.autoscaling import ALIAS, plan_function_scaling
from aws.bootstrap import plan_role
from aws.policies import function_policy
from aws.site import RECIPE_TAG, Site, function_name
from aws.steps import Step, Wait, content_name
from training.recipe import Recipe
from training.recipe_aws import LambdaFunction

RUNTIME = "python3.13"
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024  # InvokeEndpoint's BodyBlob; the guide says 25 MB, the API model 6
MAX_SERVERLESS_BYTES = 4 * 1024 * 1024
LOG_DAYS = 30


def plan_function(recipe: Recipe, site: Site, *, archive: Path) -> list[Step]:
    """Log, role, function, version, alias, warm copies and their scaling."""
    function = settings(recipe)
    name = function_name(recipe)
    tags = {**recipe.aws.tags, RECIPE_TAG: recipe.name}
    group = f"/aws/lambda/{name}"
    create = build_function(recipe, site, archive=archive)
    version = content_name("kennel", create)
    ready = Wait(
        operation="GetFunctionConfiguration",
        request={"FunctionName": name},
        state="State",
        done=("Active",),
        failed=("Failed",),
        reason="StateReason",
        timeout_seconds=300,
    )
    steps = [
        Step(service="logs", operation="CreateLogGroup", request={"logGroupName": group, "tags": tags}),
        Step(
            service="logs",
            operation="PutRetentionPolicy",
            request={"logGroupName": group, "retentionInDays": LOG_DAYS},
        ),
        *plan_role(site, role_purpose(recipe), function_policy(site, recipe), "lambda", tags),
        Step(service="lambda", operation="CreateFunction", request=create, wait_for=ready),
        Step(
            service="lambda",
            operation="PublishVersion",
            request={"FunctionName": name, "Description": version},
        ),
        Step(
            service="lambda",
            operation="CreateAlias",
            request={"FunctionName": name, "Name": ALIAS, "FunctionVersion": "1"},
            taken={"FunctionVersion": ("PublishVersion", "Version")},
        ),
    ]
    return steps + (plan_warm_copies(recipe, function) if function.provisioned_concurrency else [])


def plan_warm_copies(recipe: Recipe, function: LambdaFunction) -> list[Step]:
    """Provisioned concurrency of the alias, then its own scaling."""
    alias = {"FunctionName": function_name(recipe), "Qualifier": ALIAS}
    wait = Wait(
        operation="GetProvisionedConcurrencyConfig",
        request=alias,
        state="Status",
        done=("READY",),
        failed=("FAILED",),
        reason="StatusReason",
        timeout_seconds=600,
    )
    request = {**alias, "ProvisionedConcurrentExecutions": function.provisioned_concurrency}
    return [
        Step(
            service="lambda",
            operation="PutProvisionedConcurrencyConfig",
            request=request,
            wait_for=wait,
        ),
        *plan_function_scaling(recipe, function),
    ]


def build_function(recipe: Recipe, site: Site, *, archive: Path) -> dict[str, Any]:
    """The CreateFunction request."""
    function = settings(recipe)
    serverless = recipe.endpoint is not None and recipe.endpoint.serverless is not None
    environment = {
        "ENDPOINT_NAME": recipe.name,
        "MAX_PAYLOAD_BYTES": str(MAX_SERVERLESS_BYTES if serverless else MAX_PAYLOAD_BYTES),
        "ALLOW_URLS": json.dumps(function.allow_urls),
        "ALLOW_S3": json.dumps(function.allow_s3),
    }
    return {
        "FunctionName": function_name(recipe),
        "Runtime": RUNTIME,
        "Role": site.role_arn(role_purpose(recipe)),
        "Handler": "handler.handle",
        "Code": {"ZipFile": archive},
        "Description": f"Asks endpoint {recipe.name}; code {archive.stem}",
        "Timeout": function.timeout_seconds,
        "MemorySize": function.memory_mb,
        "Architectures": ["x86_64"],
        "Environment": {"Variables": environment},
        "Tags": {**recipe.aws.tags, RECIPE_TAG: recipe.name},
    }


def role_purpose(recipe: Recipe) -> str:
    """Part of the name of the function's role."""
    return f"function-{recipe.name}"


def settings(recipe: Recipe) -> LambdaFunction:
    """The recipe's [endpoint.lambda], or its defaults."""
    found = recipe.endpoint.lambda_function if recipe.endpoint else None
    return found or LambdaFunction()
