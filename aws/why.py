"""Why a job or an endpoint failed: its reason and log, against the failures people really post."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A failure, how it shows, and what ends it."""

    name: str
    shows: str  # regular expression, sought in reason and log
    meaning: str
    fix: str


# The most telling first: a ping fails because of a driver, not the other way round.
CAUSES = (
    Cause(
        name="driver",
        shows=r"(?i)NVIDIA driver on your system is too old|CUDA driver version is insufficient|"
        r"cudaErrorInsufficientDriver"
        r"|forward compatibility was attempted|unsatisfied condition: cuda|driver \d+ is older",
        meaning="The host's NVIDIA driver is older than the image's CUDA.",
        fix="Deploy through `python -m aws deploy`, which sets InferenceAmiVersion (transform: "
        "TransformAmiVersion, "
        "at most driver 535); or choose a newer family such as ml.g6.",
    ),
    Cause(
        name="gpu memory",
        shows=r"(?i)CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory",
        meaning="The GPU's memory was not enough.",
        fix="Lower batch_size or image_size, or choose a type with a larger GPU.",
    ),
    Cause(
        name="shared memory",
        shows=r"(?i)bus error|insufficient shared memory|/dev/shm",
        meaning="/dev/shm was full.",
        fix="Choose a larger instance; Kennel's own trainer does not use /dev/shm, so look which code does.",
    ),
    Cause(
        name="memory",
        shows=r"(?i)out of memory|OutOfMemory|oom-?kill|Killed process|exit code: 137|MemoryError|"
        r"signal 9|SIGKILL",
        meaning="The machine's memory was not enough, and the process was killed.",
        fix="Choose a type with more memory, or fewer workers (KENNEL_WORKERS) or a smaller image_size.",
    ),
    Cause(
        name="disk",
        shows=r"(?i)no space left on device|disk quota exceeded",
        meaning="The disk is full.",
        fix="Raise volume_gb; Batch Transform has 30 GB always.",
    ),
    Cause(
        name="architecture",
        shows=r"(?i)exec format error|exec user process caused|platform .* does not match",
        meaning="The image is built for another processor (arm64 against amd64).",
        fix="Build for the machine: PLATFORM=linux/amd64 ./build_and_push.sh build push (arm64 for "
        "Graviton).",
    ),
    Cause(
        name="manifest",
        shows=r"(?i)unsupported (manifest )?media type|oci\.image|manifest (type|list)|image index"
        r"|ImageManifest|application/vnd\.",
        meaning="The image's manifest is one that SageMaker does not take (OCI, or an index with "
        "attestations).",
        fix="Build and push with ./build_and_push.sh, which makes Docker v2 manifests and reads them back.",
    ),
    Cause(
        name="start",
        shows=r"(?i)CannotStartContainerError|docker run <image> (serve|train)|executable file not found",
        meaning="The container could not be started with `serve` or `train`.",
        fix="Use Kennel's images unchanged; on a GPU family check the driver too (`python -m aws doctor`).",
    ),
    Cause(
        name="role",
        shows=r"(?i)could not assume role|not authorized to perform|AccessDenied|Access Denied|"
        r"sts:AssumeRole|"
        r"unable to (access|retrieve).*role",
        meaning="The role lacks a permission, or does not trust SageMaker.",
        fix="`python -m aws bootstrap` puts both roles right; data in another bucket needs the role "
        "to read it.",
    ),
    Cause(
        name="bucket",
        shows=r"(?i)NoSuchBucket|no s3 objects found|NoSuchKey|could not find .*s3|404.*HeadObject|"
        r"does not exist.*s3",
        meaning="A bucket or what should lie in it is missing.",
        fix="`python -m aws upload RECIPE --data DIR` for data; for a model look whether its "
        "training completed.",
    ),
    Cause(
        name="region",
        shows=r"(?i)must be (located )?in the same region|PermanentRedirect|wrong region|"
        r"301 Moved Permanently",
        meaning="Bucket, image and job are not in one region.",
        fix="Push the image and keep the data where the job runs: set [aws] region, or another bucket.",
    ),
    Cause(
        name="payload",
        shows=r"(?i)413|payload.*(too large|exceed)|RequestEntityTooLarge|MaxPayloadInMB|body.*too large",
        meaning="A picture is larger than what may be sent.",
        fix="Transform: raise max_payload_mb (times max_concurrent_transforms at most 100). "
        "Endpoints take 6 MB "
        "for certain, serverless 4 MB; the Lambda function shrinks by itself.",
    ),
    Cause(
        name="timeout",
        shows=r"(?i)invocation timed out|did not respond within|Your invocation timed|read timeout|"
        r"model server.*time",
        meaning="The container took longer than 60 seconds for one request.",
        fix="Choose a faster type, or an asynchronous endpoint ([endpoint.async]), which has an hour.",
    ),
    Cause(
        name="artifact",
        shows=r"(?i)manifest\.json|sha256|checksum|golden (answer|sample)|not an artifact|model\.tar\.gz",
        meaning="The artifact is incomplete or not one of Kennel's.",
        fix="Deploy the model.tar.gz of a completed job; `python -m local serve --artifact` tries it here.",
    ),
    Cause(
        name="ping",
        shows=r"(?i)ping health check|/ping|health check|did not pass the ping|container.*not.*healthy",
        meaning="The container never answered /ping with 200 in time.",
        fix="The reason is in the endpoint's log: a model that does not load, too little memory, a driver. "
        "`python -m local serve --artifact` tries the same model here; startup_seconds gives more time.",
    ),
    Cause(
        name="capacity",
        shows=r"(?i)insufficient.*capacity|CapacityError|unable to provision|no capacity",
        meaning="AWS had no such machine free.",
        fix="Try again, another instance_type or another zone (subnets); spot finds one less easily.",
    ),
    Cause(
        name="quota",
        shows=r"(?i)ResourceLimitExceeded|service limit|account-level service limit|quota",
        meaning="The account may not run so many of this instance type.",
        fix="Service Quotas > Amazon SageMaker: ask for more; `python -m aws doctor` shows what there is.",
    ),
    Cause(
        name="spot",
        shows=r"(?i)MaxWaitTimeExceeded|spot.*interrupt|Interrupted",
        meaning="Spare capacity was taken away, or did not come in time.",
        fix="Raise max_wait_seconds, or spot = false; the job goes on from its checkpoint.",
    ),
    Cause(
        name="time",
        shows=r"(?i)MaxRuntimeExceeded|max runtime",
        meaning="The job reached max_run_seconds.",
        fix="Raise max_run_seconds, or lower epochs; the model saved at the stop is usable.",
    ),
    Cause(
        name="hyperparameter",
        shows=r"(?i)Unknown hyperparameter|is outside .* to|is not one of|HyperparameterError",
        meaning="A hyperparameter is not one the trainer takes.",
        fix="The sentence names it and the nearest known one; docs/reference.md lists all.",
    ),
    Cause(
        name="data",
        shows=r"(?i)There is no training data|unreadable|no images|empty channel|cannot identify image",
        meaning="The images are missing, or too many cannot be read.",
        fix="`make doctor DATA=...` looks a set over; channels are train, valid and test.",
    ),
    Cause(
        name="hosts",
        shows=r"(?i)host \S+ is gone|host \S+ failed|NCCL|gloo|Connection reset by peer",
        meaning="One of several machines failed or fell silent, and the others ended.",
        fix="Look at the log of the host that is named; it failed first.",
    ),
)


def find_causes(reason: str, log: Sequence[str]) -> list[Cause]:
    """Likely causes, the likeliest first: the service's own reason counts before the log."""
    in_reason = [cause for cause in CAUSES if re.search(cause.shows, reason)]
    text = "\n".join(log[-200:])
    in_log = [cause for cause in CAUSES if cause not in in_reason and re.search(cause.shows, text)]
    # "ping" only says that something is wrong; what the log shows is why.
    vague = [cause for cause in in_reason if cause.name in ("ping", "start")]
    clear = [cause for cause in in_reason if cause not in vague]
    return clear + (in_log + vague if vague else vague + in_log)


def explain_failure(name: str, state: str, reason: str, log: Sequence[str]) -> str:
    """State and reason, the likely cause and the fix, and the end of the log."""
    lines = [f"{name} is {state}: {reason.strip()}"]
    causes = find_causes(reason, log)
    for cause in causes[:2]:
        lines.append(f"  likely ({cause.name}): {cause.meaning}\n  to do: {cause.fix}")
    if not causes:
        lines.append(f"  No known cause fits. The whole log: python -m aws logs {name}")
    lines += [f"  | {line}" for line in log[-5:]]
    return "\n".join(lines)
