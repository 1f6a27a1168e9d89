"""Finds out what aws/doctor.py judges. Nothing is created; a question that is refused stays open."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from aws.client import Aws
from aws.convergence import is_absent
from aws.doctor import Facts, Image
from aws.endpoint import settings as endpoint_settings
from aws.errors import AwsError
from aws.instances import SERVING_GPU_CUDA, serving_image
from aws.inventory import ask
from aws.policies import Policy, serving_policy, training_policy
from aws.site import Site
from aws.transform_job import settings as transform_settings
from local.registry import MANIFEST_TYPES
from training.recipe import Recipe

DEFAULT_ARCHITECTURE = "amd64"
SPLITS = ("train", "valid", "test")


def gather(aws: Aws, site: Site, recipe: Recipe) -> Facts:
    """All the facts; `aws sts get-caller-identity` has answered before, or there would be no site."""
    sizes = {split: _list_sizes(aws, site, recipe, split) for split in SPLITS}
    roles = {purpose: site.role_name(purpose) for purpose in ("training", "serving")}
    trusts = {name: _read_trust(aws, name) for name in roles.values()}
    return Facts(
        account_id=site.account_id,
        region=aws.region,
        bucket_region=_read_bucket_region(aws, site),
        objects={split: len(found) for split, found in sizes.items() if found is not None},
        largest_object_bytes=max(sizes["test"] or [0]),
        images={name: _read_image(aws, site, name) for name in sorted(_images(recipe))},
        quotas=_read_quotas(aws),
        roles=trusts,
        denied=_simulate(aws, site, {name for name, trust in trusts.items() if trust}),
    )


def _images(recipe: Recipe) -> set[str]:
    """What the recipe needs."""
    endpoint = endpoint_settings(recipe)
    hosted = "serving-cpu" if endpoint.serverless else serving_image(endpoint.instance_type)
    return {"training", hosted, serving_image(transform_settings(recipe).instance_type)}


def _read_bucket_region(aws: Aws, site: Site) -> str | None:
    answer = ask(aws, "s3", "HeadBucket", {"Bucket": site.bucket_name})
    return None if answer is None else str(answer.get("BucketRegion", ""))


def _list_sizes(aws: Aws, site: Site, recipe: Recipe, split: str) -> list[int] | None:
    """Bytes of every object of a split; None where the bucket is not there."""
    request = {"Bucket": site.bucket_name, "Prefix": f"data/{recipe.name}/{split}/"}
    try:
        return [
            entry["Size"]
            for page in aws.pages("s3", "ListObjectsV2", request)
            for entry in page.get("Contents", [])
        ]
    except AwsError as error:
        if is_absent(error):
            return None
        raise


def _read_image(aws: Aws, site: Site, name: str) -> Image | None:
    """The manifest as ECR has it, by the digest that the last push left; None where there is none."""
    uri = site.images.get(name)
    if not uri or ".dkr.ecr." not in uri:
        return None
    repository, _, digest = uri.partition("/")[2].partition("@")
    request = {
        "repositoryName": repository,
        "imageIds": [{"imageDigest": digest}],
        "acceptedMediaTypes": list(MANIFEST_TYPES),
    }
    answer = ask(aws, "ecr", "BatchGetImage", request)
    if not answer or not answer["images"]:
        return None
    manifest = json.loads(answer["images"][0]["imageManifest"])
    return Image(
        uri=uri,
        media_type=manifest.get("mediaType", answer["images"][0].get("imageManifestMediaType", "")),
        architecture=_read_architecture(aws, repository, manifest),
        cuda=SERVING_GPU_CUDA if name == "serving-gpu" else 0,
    )


def _read_architecture(aws: Aws, repository: str, manifest: Mapping[str, Any]) -> str:
    """From the image's configuration; what the push asks for by default, where there is no single one."""
    digest = manifest.get("config", {}).get("digest")
    if not digest:
        return DEFAULT_ARCHITECTURE
    request = {"repositoryName": repository, "layerDigest": digest}
    url = aws.call("ecr", "GetDownloadUrlForLayer", request)["downloadUrl"]
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(json.load(response).get("architecture", DEFAULT_ARCHITECTURE))


def _read_quotas(aws: Aws) -> dict[str, float]:
    """SageMaker's, by name; empty where the question is refused."""
    try:
        return {
            quota["QuotaName"]: quota["Value"]
            for page in aws.pages("service-quotas", "ListServiceQuotas", {"ServiceCode": "sagemaker"})
            for quota in page["Quotas"]
        }
    except AwsError:
        return {}


def _read_trust(aws: Aws, name: str) -> Mapping[str, Any] | None:
    answer = ask(aws, "iam", "GetRole", {"RoleName": name})
    if answer is None:
        return None
    document = answer["Role"]["AssumeRolePolicyDocument"]
    return document if isinstance(document, dict) else dict(json.loads(document))


def _simulate(aws: Aws, site: Site, names: set[str]) -> list[tuple[str, str]]:
    """What IAM would deny of what our own policies grant: an edited role, or an organisation's limits."""
    policies = {
        site.role_name("training"): training_policy(site),
        site.role_name("serving"): serving_policy(site),
    }
    denied: list[tuple[str, str]] = []
    for name in sorted(names & policies.keys()):
        for actions, resources in _grants(policies[name]):
            request = {
                "PolicySourceArn": f"arn:{site.partition}:iam::{site.account_id}:role/{name}",
                "ActionNames": actions,
                "ResourceArns": resources,
            }
            try:
                results = aws.call("iam", "SimulatePrincipalPolicy", request)["EvaluationResults"]
            except AwsError:
                return denied  # not everybody may simulate; the job itself will tell
            denied += [
                (name, result["EvalActionName"]) for result in results if result["EvalDecision"] != "allowed"
            ]
    return denied


def _grants(policy: Policy) -> list[tuple[list[str], list[str]]]:
    """Statements without conditions, as (actions, resources); a pattern's star becomes a name."""
    return [
        (
            statement["Action"],
            [resource.replace("*", "x") if resource != "*" else "*" for resource in statement["Resource"]],
        )
        for statement in policy["Statement"]
        if "Condition" not in statement
    ]
