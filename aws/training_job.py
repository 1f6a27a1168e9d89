"""A recipe as CreateTrainingJob, and on request as a model package."""

from __future__ import annotations

from typing import Any

from aws.debugger import build_debugger
from aws.instances import has_local_disk
from aws.site import Site, build_tags, build_vpc_config
from aws.steps import PlanError, Step, Wait, content_name
from training.metrics import metric_definitions
from training.recipe import Recipe, Training

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
SPLITS = ("train", "valid", "test")
STARTUP_SECONDS = 3600  # for machines, image and data, besides the job's own time
CONTENT_TYPES = ["image/jpeg", "image/png", "application/x-image"]


def plan_training_job(recipe: Recipe, site: Site, *, data: str = "") -> list[Step]:
    """Train, wait, and register the model where the recipe says so. `data`: S3 folder with the splits."""
    request = build_training_job(recipe, site, data=data)
    name = request["TrainingJobName"]
    training = recipe.training
    wait = Wait(
        operation="DescribeTrainingJob",
        request={"TrainingJobName": name},
        state="TrainingJobStatus",
        done=("Completed",),
        failed=("Failed", "Stopped"),
        log_group=LOG_GROUP,
        timeout_seconds=(training.max_wait_seconds or training.max_run_seconds) + STARTUP_SECONDS,
    )
    steps = [Step(service="sagemaker", operation="CreateTrainingJob", request=request, wait_for=wait)]
    return steps + (plan_model_package(recipe, site, job_name=name) if training.register else [])


def build_training_job(recipe: Recipe, site: Site, *, data: str = "") -> dict[str, Any]:
    """The CreateTrainingJob request; its name is a function of all the rest."""
    check_pretrained(recipe)
    training = recipe.training
    request: dict[str, Any] = {
        "HyperParameters": recipe.hyperparameters.to_strings(),
        "AlgorithmSpecification": build_algorithm(recipe, site),
        "RoleArn": site.role_arn("training"),
        "InputDataConfig": build_channels(recipe, site, data=data),
        "OutputDataConfig": build_output(recipe, site),
        "ResourceConfig": build_resources(recipe, training.instance_count),
        "StoppingCondition": build_stopping(training),
        "EnableNetworkIsolation": training.network_isolation,
        "EnableManagedSpotTraining": training.spot,
        **build_vpc_config(recipe),
    }
    name = content_name(recipe.name, [request, site.run, recipe.debugger.on_service])
    request |= build_debugger(recipe, site, output=site.uri(f"jobs/{name}/debugger"))
    if not (recipe.debugger.on_service and training.instance_count > 1):  # the service's hook knows no both
        request["CheckpointConfig"] = {"S3Uri": site.uri(f"checkpoints/{name}")}
    return {"TrainingJobName": name, **request, "Tags": build_tags(recipe)}


def model_artifact(recipe: Recipe, site: Site, *, data: str = "", job_name: str = "") -> str:
    """Where a training job leaves its model.tar.gz: the recipe's own job, unless another is named."""
    name = job_name or build_training_job(recipe, site, data=data)["TrainingJobName"]
    return site.uri(f"jobs/{name}/output/model.tar.gz")


def build_algorithm(recipe: Recipe, site: Site) -> dict[str, Any]:
    """AlgorithmSpecification: the image by digest, and the regexes of the lines that the trainer prints."""
    return {
        "TrainingImage": site.image("training"),
        "TrainingInputMode": recipe.training.input_mode,
        "MetricDefinitions": metric_definitions(),
    }


def build_channels(recipe: Recipe, site: Site, *, data: str = "") -> list[dict[str, Any]]:
    """InputDataConfig. Only the training images may be dealt out to the hosts; a folder ends with a slash."""
    folder = (data or site.uri(f"data/{recipe.name}")).rstrip("/")
    channels = {split: (f"{folder}/{split}/", recipe.data.content_type) for split in SPLITS}
    if recipe.training.weights:
        channels["weights"] = (recipe.training.weights.rstrip("/") + "/", "application/octet-stream")
    return [
        {
            "ChannelName": name,
            "ContentType": content_type,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": uri,
                    "S3DataDistributionType": recipe.training.distribution
                    if name == "train"
                    else "FullyReplicated",
                }
            },
        }
        for name, (uri, content_type) in channels.items()
    ]


def build_output(recipe: Recipe, site: Site) -> dict[str, Any]:
    """OutputDataConfig: model.tar.gz and output.tar.gz land in jobs/JOB/output/."""
    key = {"KmsKeyId": recipe.aws.kms_key} if recipe.aws.kms_key else {}
    return {"S3OutputPath": site.uri("jobs"), **key}


def build_resources(recipe: Recipe, instance_count: int) -> dict[str, Any]:
    """ResourceConfig. Families with a disk of their own refuse a volume key."""
    training = recipe.training
    resources: dict[str, Any] = {
        "InstanceType": training.instance_type,
        "InstanceCount": instance_count,
        "VolumeSizeInGB": training.volume_gb,
    }
    if recipe.aws.kms_key and not has_local_disk(training.instance_type):
        resources["VolumeKmsKeyId"] = recipe.aws.kms_key
    if training.keep_alive_seconds:
        resources["KeepAlivePeriodInSeconds"] = training.keep_alive_seconds
    return resources


def build_stopping(training: Training) -> dict[str, int]:
    """StoppingCondition."""
    wait = {"MaxWaitTimeInSeconds": training.max_wait_seconds} if training.max_wait_seconds else {}
    return {"MaxRuntimeInSeconds": training.max_run_seconds, **wait}


def check_pretrained(recipe: Recipe) -> None:
    """An isolated container cannot download ImageNet weights. Raises PlanError."""
    training = recipe.training
    if training.network_isolation and recipe.hyperparameters.pretrained and not training.weights:
        raise PlanError(
            "[training] network_isolation = true keeps the container from downloading pretrained "
            "weights; put a "
            "state dict into the bucket and name its folder as `weights`, or set pretrained = false."
        )


def plan_model_package(recipe: Recipe, site: Site, *, job_name: str) -> list[Step]:
    """A group for the recipe and a package for the job, waiting for approval."""
    container = {
        "Image": site.image("serving-cpu"),
        "ModelDataUrl": model_artifact(recipe, site, job_name=job_name),
    }
    group = {
        "ModelPackageGroupName": recipe.name,
        "ModelPackageGroupDescription": recipe.description or recipe.name,
        "Tags": build_tags(recipe),
    }
    package = {
        "ModelPackageGroupName": recipe.name,
        "ModelPackageDescription": f"training job {job_name}",
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": CONTENT_TYPES,
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "CustomerMetadataProperties": {"training-job": job_name},
        "ClientToken": content_name("package", container),
    }
    return [
        Step(service="sagemaker", operation="CreateModelPackageGroup", request=group),
        Step(service="sagemaker", operation="CreateModelPackage", request=package),
    ]
