"""How many instances an endpoint has, and how many warm copies its function: Application Auto Scaling.

The predefined high-resolution metric counts requests in flight, queued ones included, every 10 seconds; the
per-minute one counts invocations. A policy is removed before its endpoint is updated or deleted, because the
service refuses both otherwise.
"""

from __future__ import annotations

from typing import Any

from aws.endpoint import VARIANT, settings
from aws.site import Site, function_name
from aws.steps import PlanError, Step
from training.recipe import Recipe
from training.recipe_aws import LambdaFunction, Scaling

ENDPOINT_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
FUNCTION_DIMENSION = "lambda:function:ProvisionedConcurrency"
ALIAS = "live"
METRICS = {
    "concurrent": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "invocations": "SageMakerVariantInvocationsPerInstance",
}
UTILIZATION = 0.7  # of a function's warm copies


def plan_autoscaling(recipe: Recipe, site: Site) -> list[Step]:
    """The endpoint's target and policy; the users' policy where the recipe has no [endpoint.scaling]."""
    endpoint = settings(recipe)
    if endpoint.serverless:
        raise PlanError(
            f"Recipe {recipe.name}: a serverless endpoint scales by itself; autoscale has nothing to do."
        )
    scaling = endpoint.scaling or Scaling()
    resource = f"endpoint/{recipe.name}/variant/{VARIANT}"
    metric = _backlog(recipe) if endpoint.async_inference else _predefined(METRICS[scaling.metric])
    return _steps(
        "sagemaker",
        resource,
        ENDPOINT_DIMENSION,
        bounds=(scaling.min_instances, scaling.max_instances),
        policy={
            "TargetValue": scaling.target,
            **metric,
            "ScaleInCooldown": scaling.scale_in_cooldown_seconds,
            "ScaleOutCooldown": scaling.scale_out_cooldown_seconds,
        },
        name=f"{recipe.name}-{scaling.metric}",
    )


def plan_function_scaling(recipe: Recipe, function: LambdaFunction) -> list[Step]:
    """The warm copies of the function's alias."""
    return _steps(
        "lambda",
        f"function:{function_name(recipe)}:{ALIAS}",
        FUNCTION_DIMENSION,
        bounds=(function.provisioned_concurrency, function.max_provisioned_concurrency),
        policy={"TargetValue": UTILIZATION, **_predefined("LambdaProvisionedConcurrencyUtilization")},
        name=f"{function_name(recipe)}-warm",
    )


def plan_removal(namespace: str, resource: str, dimension: str, policies: list[str]) -> list[Step]:
    """Policies and target of one resource away, before it is updated or deleted."""
    place = {"ServiceNamespace": namespace, "ResourceId": resource, "ScalableDimension": dimension}
    service = "application-autoscaling"
    return [
        *(
            Step(service=service, operation="DeleteScalingPolicy", request={"PolicyName": name, **place})
            for name in policies
        ),
        Step(service=service, operation="DeregisterScalableTarget", request=place),
    ]


def _steps(
    namespace: str,
    resource: str,
    dimension: str,
    *,
    bounds: tuple[int, int],
    policy: dict[str, Any],
    name: str,
) -> list[Step]:
    place = {"ServiceNamespace": namespace, "ResourceId": resource, "ScalableDimension": dimension}
    target = {**place, "MinCapacity": bounds[0], "MaxCapacity": bounds[1]}
    request = {
        "PolicyName": name,
        **place,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": policy,
    }
    service = "application-autoscaling"
    return [
        Step(service=service, operation="RegisterScalableTarget", request=target),
        Step(service=service, operation="PutScalingPolicy", request=request),
    ]


def _predefined(metric: str) -> dict[str, Any]:
    return {"PredefinedMetricSpecification": {"PredefinedMetricType": metric}}


def _backlog(recipe: Recipe) -> dict[str, Any]:
    """Asynchronous endpoints queue in front of the instances, so the queue is what counts."""
    return {
        "CustomizedMetricSpecification": {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": [{"Name": "EndpointName", "Value": recipe.name}],
            "Statistic": "Average",
        }
    }
