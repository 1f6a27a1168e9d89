"""The tables of a recipe that only SageMaker, Lambda and EC2 read: [aws], [endpoint], [transform], [ec2].

`training/recipe.py` reads them with the rest of the file; a local run checks them and uses none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from training.recipe_fields import (
    BUCKET,
    DAY_SECONDS,
    EC2_INSTANCE,
    HTTPS_PREFIX,
    KMS_KEY,
    REGION,
    S3_URI,
    SAGEMAKER_INSTANCE,
    SECURITY_GROUP,
    SUBNET,
    TAG,
    setting,
)

MAX_TRANSFORM_MB = 100  # CreateTransformJob: MaxConcurrentTransforms x MaxPayloadInMB
OWN_TAGS = "kennel:"  # the prefix `destroy` goes by; no recipe may set such a tag itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """[aws]: where in the account everything goes. What is left out is found by `python -m aws`."""

    region: str = setting(
        "region; empty: AWS_REGION or the profile's", "", pattern=(f"({REGION[0]})?", REGION[1])
    )
    bucket: str = setting("bucket; empty: kennel-ACCOUNT-REGION", "", pattern=(f"({BUCKET[0]})?", BUCKET[1]))
    subnets: tuple[str, ...] = setting("of the VPC that jobs run in", (), pattern=SUBNET, max_items=16)
    security_groups: tuple[str, ...] = setting("in that VPC", (), pattern=SECURITY_GROUP, max_items=5)
    kms_key: str = setting(
        "encrypts volumes and output; empty: the service's key", "", pattern=(f"({KMS_KEY[0]})?", KMS_KEY[1])
    )
    tags: Mapping[str, str] = setting("on everything, besides Kennel's own", None, pattern=TAG, max_items=40)
    ttl_hours: int = setting("`costs --expired` stops an endpoint after this; 0 = never", 8, low=0, high=8760)

    def __post_init__(self) -> None:
        if self.tags is None:
            object.__setattr__(self, "tags", {})
        own = [key for key in self.tags if key.startswith((OWN_TAGS, "aws:"))]
        if own:
            raise ValueError(
                f"tag {own[0]!r} begins with {OWN_TAGS!r} or 'aws:', which are taken; rename it."
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups go together: give both, or neither.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """[endpoint.scaling]: how many instances, kept near a load for each of them."""

    min_instances: int = setting("never fewer", 1, low=1, high=1000)
    max_instances: int = setting("never more", 3, low=1, high=1000)
    metric: Literal["concurrent", "invocations"] = setting(
        "what is kept: requests in flight (looked at every 10 s), or invocations a minute", "concurrent"
    )
    target: float = setting("of that metric, for one instance", 10.0, low=0.01, high=1e9)
    scale_in_cooldown_seconds: int = setting("between removals", 120, low=0, high=DAY_SECONDS)
    scale_out_cooldown_seconds: int = setting("between additions", 30, low=0, high=DAY_SECONDS)

    def __post_init__(self) -> None:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"min_instances={self.min_instances} is more than max_instances={self.max_instances}; "
                "lower one or raise the other."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaFunction:
    """[endpoint.lambda]: the function that calls the endpoint for clients without AWS credentials."""

    memory_mb: int = setting("its memory, and with it its share of a processor", 1024, low=128, high=10_240)
    timeout_seconds: int = setting("longer than an invocation's 60 s", 75, low=1, high=900)
    provisioned_concurrency: int = setting("copies kept warm; 0 = none", 2, low=0, high=10_000)
    max_provisioned_concurrency: int = setting("up to this many when busy", 10, low=0, high=10_000)
    allow_urls: tuple[str, ...] = setting(
        "{'url': ...} may begin with these", (), pattern=HTTPS_PREFIX, max_items=20
    )
    allow_s3: tuple[str, ...] = setting(
        "{'s3': ...} and S3 events may begin with these", (), pattern=S3_URI, max_items=20
    )

    def __post_init__(self) -> None:
        if self.provisioned_concurrency > self.max_provisioned_concurrency:
            raise ValueError(
                f"provisioned_concurrency={self.provisioned_concurrency} is more than "
                f"max_provisioned_concurrency={self.max_provisioned_concurrency}; raise the latter."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serverless:
    """[endpoint.serverless]: an endpoint without instances, paid by the request."""

    memory_mb: int = setting("1024 to 6144 in steps of 1024", 4096, low=1024, high=6144, step=1024)
    max_concurrency: int = setting("requests at once", 10, low=1, high=200)
    provisioned_concurrency: int = setting("copies kept warm; 0 = none", 0, low=0, high=200)

    def __post_init__(self) -> None:
        if self.provisioned_concurrency > self.max_concurrency:
            raise ValueError(
                f"provisioned_concurrency={self.provisioned_concurrency} is more than "
                f"max_concurrency={self.max_concurrency}; lower it."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncInference:
    """[endpoint.async]: requests lie in S3, answers too; up to 1 GB and an hour each."""

    max_concurrent: int = setting("requests at once, for one instance", 4, low=1, high=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """[endpoint]: the machines that answer, and how one version follows another."""

    instance_type: str = setting("machine", "ml.m5.large", pattern=SAGEMAKER_INSTANCE)
    initial_instance_count: int = setting("how many at the start", 1, low=1, high=1000)
    startup_seconds: int = setting(
        "to the first good /ping, then the start has failed", 600, low=60, high=3600
    )
    capture_percent: int = setting("of requests and answers kept in the bucket", 0, low=0, high=100)
    update: Literal["all-at-once", "canary", "linear"] = setting(
        "how traffic moves to a new version", "all-at-once"
    )
    update_percent: int = setting("of a canary, or of one linear step", 10, low=1, high=50)
    bake_seconds: int = setting(
        "alarms are watched this long before more traffic moves", 300, low=0, high=3600
    )
    shadow: str = setting(
        "model.tar.gz that gets a copy of the traffic", "", pattern=(f"({S3_URI[0]})?", S3_URI[1])
    )
    scaling: Scaling | None = None
    lambda_function: LambdaFunction | None = dataclasses.field(default=None, metadata={"key": "lambda"})
    serverless: Serverless | None = None
    async_inference: AsyncInference | None = dataclasses.field(default=None, metadata={"key": "async"})

    def __post_init__(self) -> None:
        scaling = self.scaling
        if scaling and not scaling.min_instances <= self.initial_instance_count <= scaling.max_instances:
            raise ValueError(
                f"initial_instance_count={self.initial_instance_count} is outside [endpoint.scaling]'s "
                f"{scaling.min_instances} to {scaling.max_instances}."
            )
        if self.serverless and self.async_inference:
            raise ValueError("[endpoint.serverless] and [endpoint.async] exclude each other; keep one.")
        if self.serverless:
            self._check_serverless()

    def _check_serverless(self) -> None:
        """What the service refuses on a serverless endpoint."""
        for unwanted, what in (
            (self.capture_percent, "capture_percent"),
            (self.shadow, "shadow"),
            (self.scaling, "[endpoint.scaling]"),
        ):
            if unwanted:
                raise ValueError(
                    f"{what} does not exist on serverless endpoints; drop it or [endpoint.serverless]."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """[transform]: the machines of a Batch Transform job, and what is sent to them at once."""

    instance_type: str = setting("machine", "ml.m5.large", pattern=SAGEMAKER_INSTANCE)
    instance_count: int = setting("objects are shared out among them", 1, low=1, high=100)
    max_concurrent_transforms: int = setting("requests in flight per instance", 4, low=1, high=100)
    max_payload_mb: int = setting("largest image", 6, low=1, high=MAX_TRANSFORM_MB)

    def __post_init__(self) -> None:
        total_mb = self.max_concurrent_transforms * self.max_payload_mb
        if total_mb > MAX_TRANSFORM_MB:
            raise ValueError(
                f"max_concurrent_transforms={self.max_concurrent_transforms} x "
                f"max_payload_mb={self.max_payload_mb} is {total_mb} MB; SageMaker allows "
                f"{MAX_TRANSFORM_MB}. Lower one."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2:
    """[ec2]: the same training on a plain machine."""

    instance_type: str = setting("machine", pattern=EC2_INSTANCE)
    volume_gb: int = setting("its disk", 100, low=30, high=16_384)
    max_hours: int = setting("it ends itself after this, whatever happens", 4, low=1, high=72)
    spot: bool = setting("spare capacity: cheaper, may be taken away", False)
