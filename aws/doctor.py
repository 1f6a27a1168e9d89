"""What would go wrong on AWS, found before anything is created. Facts in, findings out: pure but for `gather`
(aws/doctor_facts.py).

Each finding says what is wrong, which value, and what to do. `refuses`: the service would not do it at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aws.endpoint import settings as endpoint_settings
from aws.function import MAX_PAYLOAD_BYTES, MAX_SERVERLESS_BYTES
from aws.instances import (
    BATCH_DRIVERS,
    DRIVERS_OF_CUDA,
    SERVING_GPU_CUDA,
    TOO_OLD_GPUS,
    architecture,
    family,
    is_gpu,
    is_neuron,
    newest_batch_driver,
    serving_image,
)
from aws.transform_job import settings as transform_settings
from training.recipe import Recipe

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the registry says about an image; `cuda` is its major version, 0 without."""

    uri: str
    media_type: str = DOCKER_MANIFEST
    architecture: str = "amd64"
    cuda: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out about the account. Empty or None: not asked, or the question was refused."""

    account_id: str = ""
    region: str = ""
    bucket_region: str | None = ""  # None: there is no such bucket
    objects: Mapping[str, int] = field(default_factory=dict)  # split -> how many
    largest_object_bytes: int = 0  # of what is to be transformed
    images: Mapping[str, Image | None] = field(default_factory=dict)  # None: not in the registry
    quotas: Mapping[str, float] = field(
        default_factory=dict
    )  # "ml.g5.xlarge for training job usage" -> count
    roles: Mapping[str, Mapping[str, object] | None] = field(
        default_factory=dict
    )  # name -> trust, None: absent
    denied: Sequence[tuple[str, str]] = ()  # (role, action) that IAM's simulation denies
    debugger_closed: bool | None = None
    clarify_closed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that would go wrong."""

    about: str
    message: str
    refuses: bool = True


def judge(recipe: Recipe, facts: Facts) -> list[Finding]:
    """All findings, what refuses first."""
    found = [finding for rule in RULES for finding in rule(recipe, facts)]
    return sorted(found, key=lambda finding: not finding.refuses)


def judge_account(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """Credentials and region."""
    if not facts.account_id:
        yield Finding(
            about="credentials", message="No valid AWS credentials; run `aws configure` or `aws sso login`."
        )
    wanted = recipe.aws.region
    if wanted and facts.region and wanted != facts.region:
        yield Finding(
            about="region",
            message=f"The session's region is {facts.region}, the recipe's {wanted}; give --region {wanted}.",
        )


def judge_bucket(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """The bucket and what lies in it."""
    if facts.bucket_region is None:
        yield Finding(about="bucket", message="The bucket is missing; run `python -m aws bootstrap RECIPE`.")
        return
    if facts.bucket_region and facts.region and facts.bucket_region != facts.region:
        yield Finding(
            about="bucket",
            message=f"The bucket lies in {facts.bucket_region}, jobs run in {facts.region}; set [aws] region "
            f"= {facts.bucket_region!r}, or another bucket.",
        )
    for split, count in facts.objects.items():
        if not count:
            yield Finding(
                about="data",
                message=f"Nothing lies under {split}; run `python -m aws upload RECIPE --data DIR`.",
                refuses=split == "train",
            )


def judge_payload(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """Pictures against what may be sent."""
    transform = transform_settings(recipe)
    size = facts.largest_object_bytes
    if size > transform.max_payload_mb * MEGABYTE:
        needed = -(-size // MEGABYTE)
        most = 100 // needed if needed <= 100 else 0
        fix = (
            f"set max_payload_mb = {needed} and max_concurrent_transforms = {most} or less"
            if most
            else "leave it out: Batch Transform takes 100 MB at most"
        )
        yield Finding(
            about="payload",
            message=f"The largest picture has {size / MEGABYTE:.1f} MB, [transform] max_payload_mb="
            f"{transform.max_payload_mb}; {fix}.",
        )
    serverless = endpoint_settings(recipe).serverless is not None
    limit = MAX_SERVERLESS_BYTES if serverless else MAX_PAYLOAD_BYTES
    if size > limit:
        yield Finding(
            about="payload",
            message=f"The largest picture has {size / MEGABYTE:.1f} MB; the endpoint takes "
            f"{limit // MEGABYTE} MB for "
            "certain. Ask through the Lambda function, which shrinks, or by [endpoint.async].",
            refuses=False,
        )


def judge_images(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """Each image the recipe needs: there, in this region, of a kind that SageMaker takes."""
    machines = _machines(recipe)
    for name, image in facts.images.items():
        if image is None:
            yield Finding(
                about="image", message=f"{name} is not in ECR; ./build_and_push.sh build push {name}."
            )
            continue
        if ".dkr.ecr." in image.uri and facts.region and f".dkr.ecr.{facts.region}." not in image.uri:
            yield Finding(
                about="image",
                message=f"{image.uri} is not in {facts.region}; AWS_REGION={facts.region} "
                f"./build_and_push.sh push {name}.",
            )
        if image.media_type != DOCKER_MANIFEST:
            yield Finding(
                about="manifest",
                message=f"{name} has a manifest of type {image.media_type}, which SageMaker refuses; "
                "build and push "
                "it with ./build_and_push.sh, which makes a Docker v2 manifest.",
            )
        for use, instance_type in machines.items():
            if _image_of(use, instance_type) == name and architecture(instance_type) != image.architecture:
                yield Finding(
                    about="architecture",
                    message=f"{name} is built for {image.architecture}, but [{use}] {instance_type} is "
                    f"{architecture(instance_type)}; PLATFORM=linux/{architecture(instance_type)} "
                    f"./build_and_push.sh build push {name}.",
                )


def judge_drivers(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """A GPU image against the drivers that its hosts can have."""
    transform = transform_settings(recipe)
    image = facts.images.get("serving-gpu")
    cuda = image.cuda if image else 0
    if is_gpu(transform.instance_type):
        cuda = cuda or SERVING_GPU_CUDA
        newest = newest_batch_driver(transform.instance_type)
        if not newest:
            yield Finding(
                about="driver",
                message=f"[transform] {transform.instance_type}: the driver of these hosts is not "
                "documented; known "
                f"are {', '.join(sorted(BATCH_DRIVERS))}.",
                refuses=False,
            )
        elif newest < DRIVERS_OF_CUDA[cuda]:
            yield Finding(
                about="driver",
                message=f"[transform] {transform.instance_type}: serving-gpu has CUDA {cuda}, which "
                "needs driver "
                f"{DRIVERS_OF_CUDA[cuda]}; Batch Transform hosts have {newest} at most. Use a CUDA 12 image "
                "(requirements/serving-gpu.in), or a CPU type.",
            )


def judge_machines(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """Types that no image runs on, and quotas."""
    for use, instance_type in _machines(recipe).items():
        if is_neuron(instance_type):
            yield Finding(
                about="instance type",
                message=f"[{use}] {instance_type} has an accelerator that no image here runs on; "
                "choose a CPU type "
                "or an NVIDIA one such as ml.g5.xlarge.",
            )
        if family(instance_type) in TOO_OLD_GPUS:
            yield Finding(
                about="instance type",
                message=f"[{use}] {instance_type}: CUDA 12 does not know its GPU "
                f"({TOO_OLD_GPUS[family(instance_type)]}); "
                "choose ml.g4dn or newer.",
            )
        yield from _judge_quota(use, instance_type, recipe, facts)


def _judge_quota(use: str, instance_type: str, recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    wanted = _counts(recipe)[use]
    words = QUOTA_WORDS[use]
    if use == "training" and recipe.training.spot:
        words = "for spot training job usage"
    name = f"{instance_type} {words}"
    if facts.quotas and facts.quotas.get(name, 0) < wanted:
        yield Finding(
            about="quota",
            message=f"[{use}] wants {wanted} x {instance_type}, the quota {name!r} is "
            f"{facts.quotas.get(name, 0):g}; ask for more under Service Quotas > Amazon SageMaker.",
        )
    warm = f"{instance_type} for training warm pool usage"
    if use == "training" and recipe.training.keep_alive_seconds and facts.quotas.get(warm, 0) < wanted:
        if facts.quotas:
            yield Finding(
                about="quota",
                message=f"keep_alive_seconds needs the quota {warm!r} of {wanted} (now "
                f"{facts.quotas.get(warm, 0):g}); "
                "it is 0 until you ask.",
            )


def judge_roles(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """There, trusting SageMaker, allowed what the jobs need."""
    for name, trust in facts.roles.items():
        if trust is None:
            yield Finding(
                about="role", message=f"Role {name} is missing; run `python -m aws bootstrap RECIPE`."
            )
        elif "sagemaker.amazonaws.com" not in str(trust):
            yield Finding(
                about="trust",
                message=f"Role {name} does not trust sagemaker.amazonaws.com; `python -m aws "
                "bootstrap RECIPE` "
                "puts it right.",
            )
    for name, action in facts.denied:
        yield Finding(
            about="permission",
            message=f"Role {name} is not allowed {action}; `python -m aws bootstrap RECIPE` puts its "
            "policy right, "
            "unless the organisation forbids it.",
        )


def judge_closed(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """Features that new accounts cannot have (maintenance list of 2026-06-30)."""
    if recipe.debugger.on_service:
        yield Finding(
            about="debugger",
            message="SageMaker Debugger is closed to accounts that did not use it before 2026-07-30; "
            "set [debugger] "
            "on_service = false. The rules of the recipe run inside the container as well.",
            refuses=bool(facts.debugger_closed),
        )
    if endpoint_settings(recipe).capture_percent:
        yield Finding(
            about="capture",
            message="capture_percent: Model Monitor is closed to new accounts; whether they may "
            "still capture data "
            "is not documented. If the endpoint is refused, set it to 0.",
            refuses=False,
        )


def judge_isolation(recipe: Recipe, facts: Facts) -> Iterator[Finding]:
    """What an isolated or private container cannot reach."""
    training = recipe.training
    if training.network_isolation and recipe.hyperparameters.pretrained and not training.weights:
        yield Finding(
            about="isolation",
            message="network_isolation = true and pretrained = true: the container cannot download "
            "weights; name "
            "their folder in the bucket as [training] weights.",
        )
    elif recipe.aws.subnets and recipe.hyperparameters.pretrained and not training.weights:
        yield Finding(
            about="network",
            message="The job runs in your VPC and downloads pretrained weights: the subnets need a "
            "NAT gateway, or "
            "name a folder in the bucket as [training] weights.",
            refuses=False,
        )


RULES = (
    judge_account,
    judge_bucket,
    judge_payload,
    judge_images,
    judge_drivers,
    judge_machines,
    judge_roles,
    judge_closed,
    judge_isolation,
)
QUOTA_WORDS = {
    "training": "for training job usage",
    "endpoint": "for endpoint usage",
    "transform": "for transform job usage",
}


def _machines(recipe: Recipe) -> dict[str, str]:
    """Use -> instance type; a serverless endpoint has none."""
    endpoint = endpoint_settings(recipe)
    hosted = {} if endpoint.serverless else {"endpoint": endpoint.instance_type}
    transform = {"transform": transform_settings(recipe).instance_type}
    return {"training": recipe.training.instance_type, **hosted, **transform}


def _counts(recipe: Recipe) -> dict[str, int]:
    endpoint = endpoint_settings(recipe)
    tuning = recipe.tuning.max_parallel_jobs * recipe.tuning.instance_count if recipe.tuning else 0
    return {
        "training": max(recipe.training.instance_count, tuning),
        "endpoint": endpoint.scaling.max_instances if endpoint.scaling else endpoint.initial_instance_count,
        "transform": transform_settings(recipe).instance_count,
    }


def _image_of(use: str, instance_type: str) -> str:
    return "training" if use == "training" else serving_image(instance_type)
