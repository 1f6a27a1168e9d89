"""Where in AWS a plan applies: account, region, bucket, and the names and ARNs that follow from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from aws.steps import PlanError
from training.recipe import Recipe

PROJECT = "kennel"
RECIPE_TAG = "kennel:recipe"
TTL_TAG = "kennel:ttl-hours"
BOOTSTRAP = "@bootstrap"  # what the tag says on what all recipes share; no recipe can be called so
IMAGES = ("training", "serving-cpu", "serving-gpu")

# What a dry run without credentials puts in their place; nothing with them in it is ever sent.
NO_ACCOUNT = "000000000000"
NO_DIGEST = "sha256:" + "0" * 64
DEFAULT_REGION = "us-east-1"

Tags = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One account, one region, one bucket."""

    account_id: str = NO_ACCOUNT
    region: str = DEFAULT_REGION
    bucket: str = ""
    images: Mapping[str, str] = field(default_factory=dict)  # name -> REPOSITORY@DIGEST
    run: str = ""  # tells apart two runs of the same job

    @property
    def partition(self) -> str:
        """aws, aws-cn or aws-us-gov."""
        for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
            if self.region.startswith(prefix):
                return partition
        return "aws"

    @property
    def bucket_name(self) -> str:
        """The recipe's, or kennel-ACCOUNT-REGION."""
        return self.bucket or f"{PROJECT}-{self.account_id}-{self.region}"

    def uri(self, key: str) -> str:
        """s3://BUCKET/KEY"""
        return f"s3://{self.bucket_name}/{key}"

    def arn(self, service: str, resource: str) -> str:
        """arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE"""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"

    def bucket_arn(self, key: str = "") -> str:
        """Of the bucket, or of what lies under a key."""
        return f"arn:{self.partition}:s3:::{self.bucket_name}{f'/{key}' if key else ''}"

    def role_name(self, purpose: str) -> str:
        """IAM is one for all regions, so the region is part of the name."""
        return f"{PROJECT}-{purpose}-{self.region}"

    def role_arn(self, purpose: str) -> str:
        """Of the role with that name."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{self.role_name(purpose)}"

    def image(self, name: str) -> str:
        """REPOSITORY@DIGEST. Raises PlanError where the image lies in another region: the service would."""
        uri = self.images.get(name) or f"{self.registry}/{PROJECT}/{name}@{NO_DIGEST}"
        found = re.match(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.", uri)
        if found and found[2] != self.region:
            raise PlanError(
                f"Image {uri} lies in {found[2]}, but the job runs in {self.region}; SageMaker pulls from "
                "its own "
                f"region only. Push it there: AWS_REGION={self.region} ./build_and_push.sh push {name}"
            )
        return uri

    @property
    def registry(self) -> str:
        """ECR's host."""
        suffix = ".cn" if self.partition == "aws-cn" else ""
        return f"{self.account_id}.dkr.ecr.{self.region}.amazonaws.com{suffix}"


def build_tags(recipe: Recipe, *, ttl: bool = False) -> Tags:
    """Kennel's own, by which `destroy` and `costs` go, and the recipe's."""
    tags = {**recipe.aws.tags, RECIPE_TAG: recipe.name}
    if ttl and recipe.aws.ttl_hours:
        tags[TTL_TAG] = str(recipe.aws.ttl_hours)
    return tag_list(tags)


def tag_list(tags: Mapping[str, str]) -> Tags:
    """In the form most services take them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def function_name(recipe: Recipe) -> str:
    """Of the recipe's Lambda function."""
    return f"{PROJECT}-{recipe.name}"


def build_vpc_config(recipe: Recipe) -> dict[str, dict[str, list[str]]]:
    """{"VpcConfig": ...}, or nothing where the recipe names no network."""
    if not recipe.aws.subnets:
        return {}
    return {
        "VpcConfig": {
            "SecurityGroupIds": list(recipe.aws.security_groups),
            "Subnets": list(recipe.aws.subnets),
        }
    }
