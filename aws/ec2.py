"""The same training on a plain EC2 machine, under the same contract; the machine ends itself.

User data (aws/ec2_training.sh) pulls the image by digest, copies the channels, writes SageMaker's config
files, runs `train`, uploads what it left, and shuts down, which terminates the machine. A timer set first of
all does the same when anything hangs.
"""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from aws.bootstrap import plan_role
from aws.instances import architecture, is_gpu
from aws.policies import machine_policy
from aws.site import RECIPE_TAG, Site, tag_list
from aws.steps import PlanError, Step, content_name
from aws.training_job import build_channels
from training.recipe import Recipe
from training.recipe_aws import Ec2

SCRIPT = Path(__file__).with_name("ec2_training.sh")
STOP_MINUTES = 15  # between the trainer's SIGTERM and the power being cut: export and upload
MACHINE_IMAGES = {
    False: "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
    True: "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-al2023/latest/ami-id",
}


def plan_ec2(recipe: Recipe, site: Site, *, data: str = "") -> list[Step]:
    """Role, instance profile, machine. Nothing waits: the bucket gets jobs/NAME/output/ when it is over."""
    tags = {**recipe.aws.tags, RECIPE_TAG: recipe.name}
    role = site.role_name(role_purpose(recipe))
    profile = {"InstanceProfileName": role}
    return [
        *plan_role(site, role_purpose(recipe), machine_policy(site), "ec2", tags),
        Step(
            service="iam",
            operation="CreateInstanceProfile",
            request={**profile, "Tags": tag_list(tags)},
        ),
        Step(service="iam", operation="AddRoleToInstanceProfile", request={**profile, "RoleName": role}),
        Step(service="ec2", operation="RunInstances", request=build_machine(recipe, site, data=data)),
    ]


def build_machine(recipe: Recipe, site: Site, *, data: str = "") -> dict[str, Any]:
    """The RunInstances request. Raises PlanError where the recipe has no [ec2], or wants several hosts."""
    ec2 = _settings(recipe)
    job = content_name(recipe.name, ["ec2", *_facts(recipe, site, data).items(), ec2.instance_type, site.run])
    tags = tag_list({**recipe.aws.tags, RECIPE_TAG: recipe.name, "Name": job})
    request: dict[str, Any] = {
        "ImageId": MACHINE_IMAGES[is_gpu(ec2.instance_type)],
        "InstanceType": ec2.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": job,
        "IamInstanceProfile": {"Name": site.role_name(role_purpose(recipe))},
        "InstanceInitiatedShutdownBehavior": "terminate",
        # One hop: the machine's own credentials are not for what runs inside the container.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "VolumeSize": ec2.volume_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "UserData": base64.b64encode(build_user_data(recipe, site, job=job, data=data).encode()).decode(),
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if recipe.aws.subnets:
        request |= {
            "SubnetId": recipe.aws.subnets[0],
            "SecurityGroupIds": list(recipe.aws.security_groups),
        }
    if ec2.spot:
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    return request


def build_user_data(recipe: Recipe, site: Site, *, job: str, data: str = "") -> str:
    """What the machine runs as root at its first start: the facts of the job, then the script."""
    ec2 = _settings(recipe)
    facts = _facts(recipe, site, data) | {
        "JOB": job,
        "OUTPUT": site.uri(f"jobs/{job}/output"),
        "CHECKPOINTS": site.uri(f"checkpoints/{job}"),
        "MAX_MINUTES": str(ec2.max_hours * 60),
        "STOP_MINUTES": str(STOP_MINUTES),
        "GPU": "--gpus=all" if is_gpu(ec2.instance_type) else "",
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in facts.items()]
    return "\n".join(["#!/usr/bin/env bash", *lines, SCRIPT.read_text()])


def role_purpose(recipe: Recipe) -> str:
    """Part of the name of the machine's role and instance profile."""
    return f"ec2-{recipe.name}"


def _facts(recipe: Recipe, site: Site, data: str) -> dict[str, str]:
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in build_channels(recipe, site, data=data)
    }
    return {
        "IMAGE": site.image("training"),
        "REGION": site.region,
        "HYPERPARAMETERS": json.dumps(recipe.hyperparameters.to_strings()),
        "CHANNELS": "\n".join(f"{name} {uri}" for name, uri in channels.items()),
    }


def _settings(recipe: Recipe) -> Ec2:
    if recipe.ec2 is None:
        raise PlanError(
            f"Recipe {recipe.name} has no [ec2]; add one with an instance_type such as 'g5.xlarge'."
        )
    if architecture(recipe.ec2.instance_type) != "amd64":
        raise PlanError(
            f"[ec2] instance_type={recipe.ec2.instance_type!r} is an ARM machine, and the training image "
            "is amd64; "
            "choose an Intel or AMD type such as 'm5.xlarge'."
        )
    return recipe.ec2
