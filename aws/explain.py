"""Feature attributions by SageMaker Clarify: a processing job that asks a model about masked pictures.

Clarify is closed to new customers since 2026-07-30. Every account can have the server's own (explain=cam) and
`python -m training.explain`, which computes SHAP over superpixels as well (docs/explanations.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aws.bootstrap import plan_role
from aws.debugger import registry_image
from aws.endpoint import build_model, settings
from aws.policies import explain_policy
from aws.site import RECIPE_TAG, Site, build_tags, build_vpc_config
from aws.steps import Step, Wait, content_name
from aws.transform_job import input_folder
from training.recipe import Recipe

REPOSITORY = "sagemaker-clarify-processing"
PROCESSING_INSTANCE = "ml.m5.xlarge"
LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
MAX_SECONDS = 6 * 3600


def plan_explain(
    recipe: Recipe, site: Site, *, artifact: str, labels: Sequence[str] = (), data: str = ""
) -> list[Step]:
    """Model, analysis configuration in the bucket, processing job. `labels` in the artifact's order."""
    model = build_model(recipe, site, instance_type=settings(recipe).instance_type, artifact=artifact)
    analysis = build_analysis(recipe, model_name=model["ModelName"], labels=labels)
    body = json.dumps(analysis, indent=2).encode()
    name = content_name(recipe.name, ["explain", analysis, data, site.run])
    key = f"explain/{name}/analysis_config.json"
    request = build_processing_job(recipe, site, name=name, data=data)
    wait = Wait(
        operation="DescribeProcessingJob",
        request={"ProcessingJobName": name},
        state="ProcessingJobStatus",
        done=("Completed",),
        failed=("Failed", "Stopped"),
        log_group=LOG_GROUP,
        timeout_seconds=MAX_SECONDS + 1800,
    )
    tags = {**recipe.aws.tags, RECIPE_TAG: recipe.name}
    return [
        *plan_role(site, role_purpose(recipe), explain_policy(site, recipe), "sagemaker", tags),
        Step(service="sagemaker", operation="CreateModel", request=model),
        Step(
            service="s3",
            operation="PutObject",
            request={"Bucket": site.bucket_name, "Key": key, "Body": body},
        ),
        Step(service="sagemaker", operation="CreateProcessingJob", request=request, wait_for=wait),
    ]


def build_analysis(recipe: Recipe, *, model_name: str, labels: Sequence[str]) -> dict[str, Any]:
    """analysis_config.json. The server answers `[[log-probability, ...]]`, of which `[0]` is the list."""
    return {
        "dataset_type": "application/x-image",
        "methods": {
            "shap": {
                "image_config": {
                    "model_type": "IMAGE_CLASSIFICATION",
                    "num_segments": 20,
                    "segment_compactness": 5,
                },
                "num_samples": 500,
                "seed": recipe.hyperparameters.seed,
            },
            "report": {"name": "report"},
        },
        "predictor": {
            "model_name": model_name,
            "initial_instance_count": 1,
            "instance_type": settings(recipe).instance_type,
            "content_type": "image/jpeg",
            "accept_type": "application/json",
            "probability": "[0]",
            "label_headers": list(labels) or _numbered(recipe.data.num_classes or 2),
        },
    }


def build_processing_job(recipe: Recipe, site: Site, *, name: str, data: str) -> dict[str, Any]:
    """The CreateProcessingJob request."""
    folder = site.uri(f"explain/{name}")
    network = build_vpc_config(recipe)
    return {
        "ProcessingJobName": name,
        "AppSpecification": {"ImageUri": registry_image(REPOSITORY, site.region) + ":1.0"},
        "RoleArn": site.role_arn(role_purpose(recipe)),
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": PROCESSING_INSTANCE,
                "VolumeSizeInGB": 30,
            }
        },
        "ProcessingInputs": [
            _build_input("dataset", input_folder(recipe, site, data), "dataset"),
            _build_input("analysis_config", f"{folder}/analysis_config.json", "config"),
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "analysis_result",
                    "S3Output": {
                        "S3Uri": f"{folder}/result",
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": MAX_SECONDS},
        **({"NetworkConfig": network} if network else {}),
        "Tags": build_tags(recipe),
    }


def _build_input(name: str, uri: str, place: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"/opt/ml/processing/input/{place}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }


def role_purpose(recipe: Recipe) -> str:
    """Part of the name of the job's role."""
    return f"explain-{recipe.name}"


def _numbered(count: int) -> list[str]:
    return [f"label {number}" for number in range(count)]
