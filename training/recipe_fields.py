"""What the tables of a recipe are described with: a key, and the patterns that values are held against."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

Scalar: TypeAlias = str | int | float | bool

SAGEMAKER_INSTANCE = (r"ml\.[a-z0-9-]+\.[a-z0-9-]+", "a SageMaker instance type such as 'ml.m5.large'")
EC2_INSTANCE = (
    r"(?!ml\.)[a-z0-9-]+\.[a-z0-9-]+",
    "an EC2 instance type such as 'g5.xlarge' (no 'ml.' in front)",
)
S3_URI = (r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s*?]*)?", "an S3 address such as 's3://bucket/folder/'")
HTTPS_PREFIX = (r"https://[\w.-]+(:\d+)?/\S*", "an https address with a path, such as 'https://example.com/'")
REGION = (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as 'eu-west-1'")
BUCKET = (
    r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    "a bucket's name: 3 to 63 lower-case letters, digits, dots, hyphens",
)
KMS_KEY = (r"[a-zA-Z0-9:/_-]{1,2048}", "a KMS key's ID, ARN or alias")
SUBNET = (r"subnet-[0-9a-z]+", "a subnet's ID such as 'subnet-0a1b2c3d'")
SECURITY_GROUP = (r"sg-[0-9a-z]+", "a security group's ID such as 'sg-0a1b2c3d'")
TAG = (r"[\w .:/=+@-]{0,256}", "a tag's value: at most 256 letters, digits, blanks or . : / = + @ - _")

DAY_SECONDS = 24 * 3600


def setting(help: str, default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """A key of a table. `limits`: low and high, step, choices, pattern, max_items, key (its name), read."""
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def is_of_kind(value: object, kind: type) -> bool:
    """A whole number is a number too; true and false are neither."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


KIND_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
