"""What `bootstrap` makes, as one CloudFormation template for an administrator to apply instead.

The policies are the same functions, given CloudFormation's pseudo parameters as account and region.
"""

from __future__ import annotations

import json
from typing import Any

from aws.bootstrap import TAGS, build_bucket_policy, build_encryption, build_image_lifecycle, build_lifecycle
from aws.operator_policies import extras_policy, operator_policy
from aws.policies import Policy, push_policy, serving_policy, training_policy, trust_policy
from aws.site import IMAGES, PROJECT, Site, tag_list


class TemplateSite(Site):
    """A site of which the administrator's account decides everything."""

    @property
    def partition(self) -> str:
        """CloudFormation's."""
        return "${AWS::Partition}"


SITE = TemplateSite(account_id="${AWS::AccountId}", region="${AWS::Region}")


def build_template() -> dict[str, Any]:
    """Bucket, repositories, the two roles, and managed policies to attach to people."""
    resources: dict[str, Any] = {
        "Bucket": build_bucket(),
        "BucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Bucket"},
                "PolicyDocument": _substituted(build_bucket_policy(SITE)),
            },
        },
        **{f"Repository{_camel(image)}": build_repository(image) for image in IMAGES},
        "TrainingRole": build_role("training", training_policy(SITE)),
        "ServingRole": build_role("serving", serving_policy(SITE)),
        "OperatorPolicy": build_managed_policy("operator", operator_policy(SITE)),
        "ExtrasPolicy": build_managed_policy("extras", extras_policy(SITE)),
        "PushPolicy": build_managed_policy("push", push_policy(SITE)),
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Kennel: what `python -m aws bootstrap` makes, and policies for those who run "
        "the rest",
        "Resources": resources,
        "Outputs": {
            "BucketName": {"Value": {"Ref": "Bucket"}},
            "TrainingRoleArn": {"Value": {"Fn::GetAtt": ["TrainingRole", "Arn"]}},
            "ServingRoleArn": {"Value": {"Fn::GetAtt": ["ServingRole", "Arn"]}},
        },
    }


def build_bucket() -> dict[str, Any]:
    """It outlives the stack: what lies in it is worth more."""
    (encryption,) = build_encryption("")["Rules"]
    default = encryption["ApplyServerSideEncryptionByDefault"]
    (lifecycle,) = build_lifecycle()["Rules"]
    rule = {
        "Id": lifecycle["ID"],
        "Status": lifecycle["Status"],
        "NoncurrentVersionExpiration": lifecycle["NoncurrentVersionExpiration"],
        "AbortIncompleteMultipartUpload": lifecycle["AbortIncompleteMultipartUpload"],
    }
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": _substituted(SITE.bucket_name),
            "VersioningConfiguration": {"Status": "Enabled"},
            "BucketEncryption": {
                "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": default}]
            },
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
            "LifecycleConfiguration": {"Rules": [rule]},
            "Tags": tag_list(TAGS),
        },
    }


def build_repository(image: str) -> dict[str, Any]:
    """Immutable tags, scan on push, untagged images go."""
    return {
        "Type": "AWS::ECR::Repository",
        "Properties": {
            "RepositoryName": f"{PROJECT}/{image}",
            "ImageTagMutability": "IMMUTABLE",
            "ImageScanningConfiguration": {"ScanOnPush": True},
            "LifecyclePolicy": {"LifecyclePolicyText": json.dumps(build_image_lifecycle())},
            "Tags": tag_list(TAGS),
        },
    }


def build_role(purpose: str, document: Policy) -> dict[str, Any]:
    """A role for SageMaker."""
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": _substituted(SITE.role_name(purpose)),
            "Description": f"Kennel: {purpose}",
            "AssumeRolePolicyDocument": _substituted(trust_policy("sagemaker", SITE)),
            "Policies": [{"PolicyName": "kennel", "PolicyDocument": _substituted(document)}],
            "Tags": tag_list(TAGS),
        },
    }


def build_managed_policy(purpose: str, document: Policy) -> dict[str, Any]:
    """Attached to nobody by the stack."""
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "ManagedPolicyName": _substituted(SITE.role_name(purpose)),
            "PolicyDocument": _substituted(document),
        },
    }


def _substituted(value: Any) -> Any:
    """Fn::Sub around every text that holds a pseudo parameter."""
    if isinstance(value, dict):
        return {key: _substituted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item) for item in value]
    return {"Fn::Sub": value} if isinstance(value, str) and "${" in value else value


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
