"""Failures people posted, word for word or nearly, and the cause each is given."""

from __future__ import annotations

import pytest

from aws.why import explain_failure, find_causes

PING = (
    "The primary container for production variant main did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@pytest.mark.parametrize(
    ("reason", "log", "cause"),
    [
        (PING, [], "ping"),
        (
            PING,
            ["RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."],
            "driver",
        ),
        (PING, ["exec /opt/kennel/bin/serve: exec format error"], "architecture"),
        (PING, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"], "gpu memory"),
        (PING, ["[Errno 28] No space left on device"], "disk"),
        (
            "CannotStartContainerError. Please ensure the model container for variant main starts "
            "correctly when "
            "invoked with 'docker run <image> serve'.",
            [],
            "start",
        ),
        (
            "CannotStartContainerError. Please ensure the model container for variant main starts correctly.",
            ["unsatisfied condition: cuda>=13.0, please update your driver"],
            "driver",
        ),
        ("AlgorithmError: , exit code: 137", ["Killed"], "memory"),
        (
            "AlgorithmError: Bus error. It is possible that dataloader's workers are out of shared memory",
            [],
            "shared memory",
        ),
        (
            "ClientError: Unsupported manifest media type application/vnd.oci.image.index.v1+json",
            [],
            "manifest",
        ),
        (
            "Could not assume role arn:aws:iam::123456789012:role/x. Please ensure that the role exists",
            [],
            "role",
        ),
        (
            "ClientError: Data download failed: NoSuchBucket: The specified bucket does not exist",
            [],
            "bucket",
        ),
        ("ClientError: No S3 objects found under S3 URL s3://b/train/", [], "bucket"),
        ("The bucket must be in the same region as the job", [], "region"),
        ("ClientError: 413 Request Entity Too Large", [], "payload"),
        ("CapacityError: Unable to provision requested ML compute capacity.", [], "capacity"),
        (
            "ResourceLimitExceeded: The account-level service limit 'ml.g5.xlarge for training job usage'",
            [],
            "quota",
        ),
        ("Your invocation timed out while waiting for a response from container main", [], "timeout"),
        ("Unknown hyperparameter 'epoch'. Did you mean 'epochs'?", [], "hyperparameter"),
        ("There is no training data: give a channel named train (channels found: none).", [], "data"),
        ("host algo-2 is gone: no sign of life for 60 seconds", [], "hosts"),
    ],
)
def test_cause_is_found(reason: str, log: list[str], cause: str) -> None:
    assert next(iter(find_causes(reason, log))).name == cause


def test_explanation_says_cause_fix_and_the_end_of_the_log() -> None:
    text = explain_failure("dogs", "Failed", PING, ["line"] * 9 + ["exec format error"])

    assert text.startswith(f"dogs is Failed: {PING}")
    assert "PLATFORM=linux/amd64" in text
    assert text.endswith("| exec format error")


def test_unknown_failure_points_to_the_log() -> None:
    assert "python -m aws logs dogs" in explain_failure("dogs", "Failed", "xyzzy", [])
