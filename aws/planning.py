"""Which planner a verb means, and what the command line's answers to its questions are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aws.autoscaling import plan_autoscaling
from aws.bootstrap import plan_bootstrap
from aws.ec2 import plan_ec2
from aws.endpoint import plan_endpoint
from aws.endpoint import settings as endpoint_settings
from aws.explain import plan_explain
from aws.function import plan_function
from aws.function_zip import archive_path
from aws.site import DEFAULT_REGION, IMAGES, NO_ACCOUNT, Site
from aws.steps import PlanError, Step
from aws.training_job import model_artifact, plan_training_job
from aws.transform_job import plan_transform_job
from aws.tuning_job import plan_tuning_job
from local.image_check import read_images
from training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was said beside the recipe."""

    data: str = ""  # S3 folder
    artifact: str = ""  # S3 address, or a file to upload
    job: str = ""  # training job whose model is meant
    labels: tuple[str, ...] = ()


Planner = Callable[[Recipe, Site, Asked], list[Step]]


def plan(verb: str, recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    """The steps of a verb. Raises PlanError."""
    return PLANNERS[verb](recipe, site, asked)


def offline_site(recipe: Recipe | None, *, region: str = "", run: str = "") -> Site:
    """For a dry run: what the recipe and the environment say, stand-ins for the rest."""
    account = recipe.aws if recipe else None
    return Site(
        account_id=os.environ.get("AWS_ACCOUNT_ID") or NO_ACCOUNT,
        region=region or (account.region if account else "") or region_of_environment() or DEFAULT_REGION,
        bucket=account.bucket if account else "",
        images=pushed_images(),
        run=run,
    )


def region_of_environment() -> str:
    """As boto3 finds it, but for profiles."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


def pushed_images() -> dict[str, str]:
    """Name -> REPOSITORY@DIGEST, as ./build_and_push.sh push left them."""
    return {name: image["uri"] for name, image in read_images().items() if name in IMAGES}


def _train(recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    return plan_training_job(recipe, site, data=asked.data)


def _tune(recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    return plan_tuning_job(recipe, site, data=asked.data)


def _transform(recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    upload, artifact = find_artifact(recipe, site, asked)
    return upload + plan_transform_job(recipe, site, artifact=artifact, data=asked.data)


def _deploy(recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    upload, artifact = find_artifact(recipe, site, asked)
    scaling = plan_autoscaling(recipe, site) if endpoint_settings(recipe).scaling else []
    return upload + plan_endpoint(recipe, site, artifact=artifact) + scaling


def _explain(recipe: Recipe, site: Site, asked: Asked) -> list[Step]:
    upload, artifact = find_artifact(recipe, site, asked)
    return upload + plan_explain(recipe, site, artifact=artifact, labels=asked.labels, data=asked.data)


def find_artifact(recipe: Recipe, site: Site, asked: Asked) -> tuple[list[Step], str]:
    """Where the model.tar.gz is, and the upload that brings it there where it is a file of this machine."""
    if asked.artifact and asked.job:
        raise PlanError("--artifact and --job both name a model; keep one.")
    if not asked.artifact:
        return [], model_artifact(recipe, site, job_name=asked.job)
    if asked.artifact.startswith("s3://"):
        return [], asked.artifact
    path = Path(asked.artifact)
    if not path.is_file():
        raise PlanError(f"There is no artifact {path}; give an s3:// address or a model.tar.gz.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    key = f"models/{recipe.name}/{digest[:12]}/model.tar.gz"
    request = {"Bucket": site.bucket_name, "Key": key, "Body": path, "Metadata": {"sha256": digest}}
    return [Step(service="s3", operation="PutObject", request=request)], site.uri(key)


PLANNERS: Mapping[str, Planner] = {
    "bootstrap": lambda recipe, site, asked: plan_bootstrap(site, recipe),
    "train": _train,
    "tune": _tune,
    "transform": _transform,
    "deploy": _deploy,
    "autoscale": lambda recipe, site, asked: plan_autoscaling(recipe, site),
    "function": lambda recipe, site, asked: plan_function(recipe, site, archive=archive_path()),
    "explain": _explain,
    "ec2": lambda recipe, site, asked: plan_ec2(recipe, site, data=asked.data),
}
