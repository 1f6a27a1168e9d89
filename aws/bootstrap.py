"""What all recipes share, made once for an account and region: bucket, image repositories, two roles."""

from __future__ import annotations

import json
from typing import Any

from aws.policies import Policy, serving_policy, training_policy, trust_policy
from aws.site import BOOTSTRAP, IMAGES, PROJECT, RECIPE_TAG, Site, tag_list
from aws.steps import Step
from training.recipe import Recipe

TAGS = {RECIPE_TAG: BOOTSTRAP}
UNTAGGED_DAYS = 14
OLD_VERSION_DAYS = 30


def plan_bootstrap(site: Site, recipe: Recipe | None = None) -> list[Step]:
    """A recipe adds its VPC, key and tags to the roles and the bucket."""
    tags = {**(dict(recipe.aws.tags) if recipe else {}), **TAGS}
    return [
        *plan_bucket(site, tags, kms_key=recipe.aws.kms_key if recipe else ""),
        *(step for image in IMAGES for step in plan_repository(image, tags)),
        *plan_role(site, "training", training_policy(site, recipe), "sagemaker", tags),
        *plan_role(site, "serving", serving_policy(site, recipe), "sagemaker", tags),
    ]


def plan_bucket(site: Site, tags: dict[str, str], *, kms_key: str = "") -> list[Step]:
    """Private, encrypted, versioned, TLS only; old versions and broken uploads go by themselves."""
    bucket = {"Bucket": site.bucket_name}
    create: dict[str, Any] = dict(bucket)
    if site.region != "us-east-1":  # which refuses to be named here
        create["CreateBucketConfiguration"] = {"LocationConstraint": site.region}
    return [
        Step(service="s3", operation="CreateBucket", request=create),
        _bucket_step("PutBucketTagging", bucket, Tagging={"TagSet": tag_list(tags)}),
        _bucket_step(
            "PutPublicAccessBlock",
            bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        ),
        _bucket_step(
            "PutBucketEncryption", bucket, ServerSideEncryptionConfiguration=build_encryption(kms_key)
        ),
        _bucket_step("PutBucketVersioning", bucket, VersioningConfiguration={"Status": "Enabled"}),
        _bucket_step("PutBucketPolicy", bucket, Policy=json.dumps(build_bucket_policy(site))),
        _bucket_step("PutBucketLifecycleConfiguration", bucket, LifecycleConfiguration=build_lifecycle()),
    ]


def build_encryption(kms_key: str) -> dict[str, Any]:
    """With the account's key or a KMS one; a bucket key saves a call to KMS for each object."""
    algorithm: dict[str, str] = {"SSEAlgorithm": "aws:kms" if kms_key else "AES256"}
    if kms_key:
        algorithm["KMSMasterKeyID"] = kms_key
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": algorithm, "BucketKeyEnabled": bool(kms_key)}]}


def build_bucket_policy(site: Site) -> Policy:
    """No request without TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [site.bucket_arn(), site.bucket_arn("*")],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def build_lifecycle() -> dict[str, Any]:
    """Old versions for a month, parts of broken uploads for a week."""
    return {
        "Rules": [
            {
                "ID": "old-versions",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_VERSION_DAYS},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            }
        ]
    }


def plan_repository(image: str, tags: dict[str, str]) -> list[Step]:
    """As ./build_and_push.sh makes it: immutable tags, scan on push, untagged images go."""
    name = f"{PROJECT}/{image}"
    create = {
        "repositoryName": name,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "tags": tag_list(tags),
    }
    lifecycle = {"repositoryName": name, "lifecyclePolicyText": json.dumps(build_image_lifecycle())}
    return [
        Step(service="ecr", operation="CreateRepository", request=create),
        Step(service="ecr", operation="PutLifecyclePolicy", request=lifecycle),
    ]


def build_image_lifecycle() -> dict[str, Any]:
    """ECR's lifecycle policy."""
    selection = {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": UNTAGGED_DAYS,
    }
    rule = {"rulePriority": 1, "description": "untagged images", "action": {"type": "expire"}}
    return {"rules": [{**rule, "selection": selection}]}


def plan_role(site: Site, purpose: str, document: Policy, service: str, tags: dict[str, str]) -> list[Step]:
    """A role that `service` may assume, with one inline policy."""
    name = site.role_name(purpose)
    create = {
        "RoleName": name,
        "AssumeRolePolicyDocument": json.dumps(trust_policy(service, site)),
        "Description": f"Kennel: {purpose}",
        "Tags": tag_list(tags),
    }
    inline = {"RoleName": name, "PolicyName": "kennel", "PolicyDocument": json.dumps(document)}
    return [
        Step(service="iam", operation="CreateRole", request=create),
        Step(service="iam", operation="PutRolePolicy", request=inline),
    ]


def _bucket_step(operation: str, bucket: dict[str, str], **content: Any) -> Step:
    return Step(service="s3", operation=operation, request={**bucket, **content})
