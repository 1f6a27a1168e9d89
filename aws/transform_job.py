"""A folder of images in S3 as CreateTransformJob: one request for each object, one `.out` for each answer."""

from __future__ import annotations

import math
from typing import Any

from aws.endpoint import build_model
from aws.instances import batch_ami
from aws.site import Site, build_tags
from aws.steps import Step, Wait, content_name
from training.recipe import Recipe
from training.recipe_aws import Transform

LOG_GROUP = "/aws/sagemaker/TransformJobs"
TIMEOUT_SECONDS = 24 * 3600
STARTUP_MINUTES = 5.0  # machines, image and model, paid for like the rest


def plan_transform_job(recipe: Recipe, site: Site, *, artifact: str, data: str = "") -> list[Step]:
    """The model, the job, and the wait for it. `data`: S3 folder; the test split where none is given."""
    model = build_model(recipe, site, instance_type=settings(recipe).instance_type, artifact=artifact)
    request = build_transform_job(recipe, site, model_name=model["ModelName"], data=data)
    name = request["TransformJobName"]
    wait = Wait(
        operation="DescribeTransformJob",
        request={"TransformJobName": name},
        state="TransformJobStatus",
        done=("Completed",),
        failed=("Failed", "Stopped"),
        log_group=LOG_GROUP,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    return [
        Step(service="sagemaker", operation="CreateModel", request=model),
        Step(service="sagemaker", operation="CreateTransformJob", request=request, wait_for=wait),
    ]


def build_transform_job(recipe: Recipe, site: Site, *, model_name: str, data: str = "") -> dict[str, Any]:
    """The CreateTransformJob request. The bytes decide what a picture is, so one content type serves all."""
    transform = settings(recipe)
    key = {"KmsKeyId": recipe.aws.kms_key} if recipe.aws.kms_key else {}
    ami = batch_ami(transform.instance_type)
    request: dict[str, Any] = {
        "ModelName": model_name,
        "MaxConcurrentTransforms": transform.max_concurrent_transforms,
        "MaxPayloadInMB": transform.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 120, "InvocationsMaxRetries": 3},
        "TransformInput": {
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_folder(recipe, site, data)}
            },
            "ContentType": "application/x-image",
            "CompressionType": "None",
            "SplitType": "None",
        },
        "TransformResources": {
            "InstanceType": transform.instance_type,
            "InstanceCount": transform.instance_count,
            **({"TransformAmiVersion": ami} if ami else {}),
        },
    }
    name = content_name(recipe.name, ["transform", request, site.run])
    output = {"S3OutputPath": site.uri(f"transforms/{name}"), "Accept": "application/json", **key}
    return {"TransformJobName": name, **request, "TransformOutput": output, "Tags": build_tags(recipe)}


def input_folder(recipe: Recipe, site: Site, data: str = "") -> str:
    """What is transformed, with a slash at its end: a prefix without one takes its neighbours too."""
    return (data or site.uri(f"data/{recipe.name}/test")).rstrip("/") + "/"


def settings(recipe: Recipe) -> Transform:
    """The recipe's [transform], or its defaults."""
    return recipe.transform or Transform()


def estimate_minutes(
    recipe: Recipe, *, images: int, images_per_second: float, startup_minutes: float = STARTUP_MINUTES
) -> float:
    """How long a job takes, given what one instance was measured at (`make bench-transform`).

    Objects are shared out whole, so the fullest instance decides.
    """
    share = math.ceil(images / settings(recipe).instance_count)
    return startup_minutes + share / images_per_second / 60
