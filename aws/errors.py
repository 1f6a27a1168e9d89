"""What AWS answers, as a sentence that says what happened, which value it is about, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


class AwsError(RuntimeError):
    """AWS refused, or cannot be asked. `code` and `message` are the service's, `str()` is for people."""

    def __init__(
        self,
        sentence: str,
        *,
        code: str = "",
        message: str = "",
        status: int = 0,
        answer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.message = message
        self.status = status
        self.answer = answer or {}


# (error code, in the message) -> what to do. The first that fits, both being regular expressions.
ADVICE = (
    (r"ExpiredToken|RequestExpired", "", "The login has expired; log in again (`aws sso login`)."),
    (
        r"InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|AuthFailure",
        "",
        "These are no valid credentials; check AWS_PROFILE and `aws sts get-caller-identity`.",
    ),
    (
        r"AccessDenied|Unauthorized",
        r"PassRole",
        "You may not hand that role on: attach the operator's policy "
        "(`python -m aws policy operator`, and `extras`).",
    ),
    (
        r"AccessDenied|Unauthorized",
        r"(?i)clarify|debug|no longer|not available to new",
        "The feature is closed to accounts that did not use it before July 2026; leave it out "
        "([debugger] on_service = false).",
    ),
    (
        r"AccessDenied|Unauthorized|^403$",
        "",
        "The credentials lack this permission: attach the operator's policy (`python -m aws policy "
        "operator`), "
        "or ask an administrator.",
    ),
    (
        r"ResourceLimitExceeded|LimitExceeded",
        r"instance|warm pool|account-level",
        "The account's quota for that instance type is too low; ask for more under Service Quotas > "
        "SageMaker, "
        "or choose another instance_type.",
    ),
    (
        r"ResourceLimitExceeded|LimitExceeded",
        "",
        "An account limit is reached; delete what is not used any more.",
    ),
    (
        r"ValidationException",
        r"(?i)could not assume role|cannot be assumed|RoleArn",
        "The role is missing or does not trust SageMaker: run `python -m aws bootstrap`.",
    ),
    (
        r"ValidationException",
        r"(?i)manifest|media type|image (index|list)|oci",
        "SageMaker takes Docker v2 manifests only; build and push with ./build_and_push.sh.",
    ),
    (
        r"ValidationException",
        r"(?i)image.*(not exist|not found|does not)|requested image",
        "Push the image to this region: ./build_and_push.sh build push.",
    ),
    (
        r"ValidationException",
        r"(?i)no s3 objects|could not find.*s3|NoSuchBucket|does not exist.*bucket",
        "Nothing lies under that S3 address: `python -m aws upload RECIPE --data DIR`.",
    ),
    (
        r"ValidationException",
        r"(?i)debug|profiler",
        "SageMaker Debugger may be closed to this account; set [debugger] on_service = false.",
    ),
    (r"NoSuchBucket", "", "The bucket is missing: run `python -m aws bootstrap`."),
    (
        r"BucketAlreadyExists|PermanentRedirect|IllegalLocationConstraint",
        "",
        "Bucket names are unique in the world and stay in their region; choose another [aws] bucket, or "
        "that region.",
    ),
    (r"Throttl|TooManyRequests|SlowDown", "", "AWS asks for patience; run the same command again."),
    (
        r"ResourceInUse|ConflictException|OperationAborted",
        "",
        "It is being changed right now; run it again later.",
    ),
    (
        r"InsufficientInstanceCapacity|CapacityError",
        "",
        "AWS has none free; another type, zone or time may have.",
    ),
    (r"ModelError", "", "The container answered with an error; `python -m aws logs` shows why."),
)


def explain_error(
    *, code: str, message: str, service: str, operation: str, request: Mapping[str, Any]
) -> str:
    """One or two sentences. The request's values are looked through for a name, and not shown otherwise."""
    about = _name(request)
    said = re.sub(r"\s+", " ", message).strip()[:600] or "no reason given"
    advice = next(
        (
            text
            for code_re, said_re, text in ADVICE
            if re.search(code_re, code) and re.search(said_re, message)
        ),
        "",
    )
    return f"{service} {operation}{f' {about}' if about else ''}: {said} ({code}). {advice}".strip()


def _name(request: Mapping[str, Any]) -> str:
    """The first value whose key is a name, such as TrainingJobName or Bucket."""
    for key, value in request.items():
        if isinstance(value, str) and re.search(r"(Name|name|Bucket|ResourceId)$", key):
            return value
    return ""
