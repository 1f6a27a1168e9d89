"""A recipe's [endpoint] as model, endpoint configuration, alarms and endpoint.

Models and configurations cannot be changed on AWS, so their names come from their content: a change makes new
ones, and the endpoint, whose name stays, moves over to them.
"""

from __future__ import annotations

from typing import Any

from aws.instances import is_gpu, is_neuron, realtime_ami, serving_image
from aws.site import Site, build_tags, build_vpc_config
from aws.steps import PlanError, Step, Wait, content_name
from training.recipe import Recipe
from training.recipe_aws import Endpoint

VARIANT = "main"
SHADOW = "shadow"
FAULT_SHARE = 0.05  # of requests that end in 5xx; above, a new version is rolled back
LATENCY_MICROSECONDS = 10_000_000  # of the slowest tenth
ASYNC_TIMEOUT_SECONDS = 900  # InvocationTimeoutSeconds' default
LOG_GROUP = "/aws/sagemaker/Endpoints/"


def plan_endpoint(recipe: Recipe, site: Site, *, artifact: str) -> list[Step]:
    """Model(s), configuration, alarms where they guard an update, endpoint; waits until it is in service."""
    endpoint = settings(recipe)
    models = [build_model(recipe, site, instance_type=endpoint.instance_type, artifact=artifact)]
    if endpoint.shadow:
        models.append(
            build_model(recipe, site, instance_type=endpoint.instance_type, artifact=endpoint.shadow)
        )
    config = build_endpoint_config(recipe, site, models=[model["ModelName"] for model in models])
    alarms = build_alarms(recipe) if is_guarded(endpoint) else []
    request: dict[str, Any] = {
        "EndpointName": recipe.name,
        "EndpointConfigName": config["EndpointConfigName"],
        "Tags": build_tags(recipe, ttl=True),
    }
    if is_guarded(endpoint):
        request["DeploymentConfig"] = build_deployment(endpoint, [alarm["AlarmName"] for alarm in alarms])
    return [
        *(Step(service="sagemaker", operation="CreateModel", request=model) for model in models),
        Step(service="sagemaker", operation="CreateEndpointConfig", request=config),
        *(Step(service="cloudwatch", operation="PutMetricAlarm", request=alarm) for alarm in alarms),
        Step(
            service="sagemaker",
            operation="CreateEndpoint",
            request=request,
            wait_for=wait_for_endpoint(recipe.name, endpoint),
        ),
    ]


def wait_for_endpoint(name: str, endpoint: Endpoint) -> Wait:
    """In service, or why not; RollingBack ends in service too, with the old version."""
    return Wait(
        operation="DescribeEndpoint",
        request={"EndpointName": name},
        state="EndpointStatus",
        done=("InService",),
        failed=("Failed", "OutOfService", "UpdateRollbackFailed"),
        log_group=f"{LOG_GROUP}{name}",
        timeout_seconds=2 * endpoint.startup_seconds + 12 * endpoint.bake_seconds + 1800,
    )


def build_model(recipe: Recipe, site: Site, *, instance_type: str, artifact: str) -> dict[str, Any]:
    """CreateModel: the image for the machine, by digest. Isolated: the server needs no network.

    Raises PlanError for a machine that no image here runs on.
    """
    if is_neuron(instance_type):
        raise PlanError(
            f"{instance_type} has an accelerator that Kennel's images do not run on; choose a CPU type "
            "such as "
            "ml.m5.large or an NVIDIA one such as ml.g5.xlarge."
        )
    serverless = bool(recipe.endpoint and recipe.endpoint.serverless)
    image = "serving-cpu" if serverless else serving_image(instance_type)
    request: dict[str, Any] = {
        "PrimaryContainer": {"Image": site.image(image), "ModelDataUrl": artifact},
        "ExecutionRoleArn": site.role_arn("serving"),
    }
    if not serverless:  # serverless endpoints take neither
        request |= {"EnableNetworkIsolation": True, **build_vpc_config(recipe)}
    return {"ModelName": content_name(recipe.name, request), **request, "Tags": build_tags(recipe)}


def build_endpoint_config(recipe: Recipe, site: Site, *, models: list[str]) -> dict[str, Any]:
    """CreateEndpointConfig: one variant, and a shadow of it where a second model is given."""
    endpoint = settings(recipe)
    request: dict[str, Any] = {"ProductionVariants": [build_variant(endpoint, VARIANT, models[0])]}
    if len(models) > 1:
        request["ShadowProductionVariants"] = [build_variant(endpoint, SHADOW, models[1])]
    if endpoint.capture_percent:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": endpoint.capture_percent,
            "DestinationS3Uri": site.uri(f"capture/{recipe.name}"),
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }
    if endpoint.async_inference:
        request["AsyncInferenceConfig"] = {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": endpoint.async_inference.max_concurrent},
            "OutputConfig": {
                "S3OutputPath": site.uri(f"async/{recipe.name}/answers"),
                "S3FailurePath": site.uri(f"async/{recipe.name}/failures"),
            },
        }
    if recipe.aws.kms_key and not endpoint.serverless:
        request["KmsKeyId"] = recipe.aws.kms_key
    name = content_name(recipe.name, ["endpoint-config", request])
    return {"EndpointConfigName": name, **request, "Tags": build_tags(recipe)}


def build_variant(endpoint: Endpoint, name: str, model: str) -> dict[str, Any]:
    """One production variant: serverless, or machines with a driver new enough for the image."""
    variant: dict[str, Any] = {"VariantName": name, "ModelName": model, "InitialVariantWeight": 1.0}
    if endpoint.serverless:
        serverless = endpoint.serverless
        warm = serverless.provisioned_concurrency
        config = {"MemorySizeInMB": serverless.memory_mb, "MaxConcurrency": serverless.max_concurrency}
        return variant | {"ServerlessConfig": config | ({"ProvisionedConcurrency": warm} if warm else {})}
    variant |= {
        "InstanceType": endpoint.instance_type,
        "InitialInstanceCount": endpoint.initial_instance_count,
        "ModelDataDownloadTimeoutInSeconds": endpoint.startup_seconds,
        "ContainerStartupHealthCheckTimeoutInSeconds": endpoint.startup_seconds,
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    ami = realtime_ami(endpoint.instance_type) if is_gpu(endpoint.instance_type) else ""
    return variant | ({"InferenceAmiVersion": ami} if ami else {})


def is_guarded(endpoint: Endpoint) -> bool:
    """Updates move traffic in parts, and alarms take them back."""
    return endpoint.update != "all-at-once" and not endpoint.serverless


def build_deployment(endpoint: Endpoint, alarms: list[str]) -> dict[str, Any]:
    """DeploymentConfig: a canary, or linear steps; the old fleet goes when the last bake is over."""
    size = {"Type": "CAPACITY_PERCENT", "Value": endpoint.update_percent}
    canary = endpoint.update == "canary"
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY" if canary else "LINEAR",
                "WaitIntervalInSeconds": endpoint.bake_seconds,
                ("CanarySize" if canary else "LinearStepSize"): size,
            },
            "TerminationWaitInSeconds": endpoint.bake_seconds,
            "MaximumExecutionTimeoutInSeconds": min(28_800, 3600 + 12 * endpoint.bake_seconds),
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
    }


def build_alarms(recipe: Recipe) -> list[dict[str, Any]]:
    """PutMetricAlarm twice: too many 5xx, or too slow."""
    shared = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [
            {"Name": "EndpointName", "Value": recipe.name},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "Tags": build_tags(recipe),
    }
    faults = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": FAULT_SHARE}
    slow = {
        "MetricName": "ModelLatency",
        "ExtendedStatistic": "p90",
        "Threshold": float(LATENCY_MICROSECONDS),
    }
    return [
        {"AlarmName": f"kennel-{recipe.name}-faults", **shared, **faults},
        {"AlarmName": f"kennel-{recipe.name}-latency", **shared, **slow},
    ]


def settings(recipe: Recipe) -> Endpoint:
    """The recipe's [endpoint], or its defaults."""
    return recipe.endpoint or Endpoint()
