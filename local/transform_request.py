"""A CreateTransformJob request, checked against the documented limits, and the parameters a job ends up with.

The request has boto3's form, so that the one a launcher sends can be acted out here; S3Uri and S3OutputPath
are folders of this machine (a plain path or file://).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local.data_processing import DataProcessing, parse_data_processing
from local.platform import LocalError

MEBIBYTE = 2**20
CONCURRENCY_TIMES_MB = 100  # MaxConcurrentTransforms x MaxPayloadInMB
DEFAULT_CONCURRENT, DEFAULT_STRATEGY, DEFAULT_PAYLOAD_MB = 1, "MULTI_RECORD", 6
# The API says MultiRecord; /execution-parameters and the container's environment say MULTI_RECORD.
STRATEGIES = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}
MOST_ENVIRONMENT_ENTRIES = 16
MOST_ENVIRONMENT_CHARACTERS = 10240
ENVIRONMENT_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,1023}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What governs the requests, after job, container and defaults have had their say."""

    max_concurrent: int
    is_single_record: bool
    max_payload_mb: int  # 0: streamed, without a limit

    @property
    def max_payload_bytes(self) -> int | None:
        """None where payloads are streamed."""
        return self.max_payload_mb * MEBIBYTE or None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformRequest:
    """A checked request; None is what it leaves to the container or the defaults."""

    source: Path
    destination: Path
    is_manifest: bool = False
    is_gzipped: bool = False
    content_type: str | None = None
    accept: str | None = None
    split: str = "None"
    assemble: str = "None"
    strategy: str | None = None
    max_concurrent: int | None = None
    max_payload_mb: int | None = None
    timeout_seconds: int = 600
    max_retries: int = 3
    num_instances: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    processing: DataProcessing = field(default_factory=DataProcessing)

    def identity(self) -> dict[str, Any]:
        """What decides the answers: a job continued under another one would mix two kinds of them."""
        stored = asdict(self) | {"source": str(self.source.resolve()), "environment": dict(self.environment)}
        without_effect = ("destination", "max_concurrent", "timeout_seconds", "max_retries", "num_instances")
        return {name: value for name, value in stored.items() if name not in without_effect}


def parse_transform_request(request: Mapping[str, Any]) -> TransformRequest:
    """CreateTransformJob's fields, typed. Raises LocalError naming field, value and what is allowed."""
    given, output = dict(request.get("TransformInput", {})), dict(request.get("TransformOutput", {}))
    location = given.get("DataSource", {}).get("S3DataSource", {})
    client = request.get("ModelClientConfig", {})
    parsed = TransformRequest(
        source=_path("S3Uri", location.get("S3Uri")),
        destination=_path("S3OutputPath", output.get("S3OutputPath")),
        is_manifest=_one_of("S3DataType", location, "S3Prefix", "ManifestFile") == "ManifestFile",
        is_gzipped=_one_of("CompressionType", given, "None", "Gzip") == "Gzip",
        content_type=given.get("ContentType"),
        accept=output.get("Accept"),
        split=_one_of("SplitType", given, "None", "Line", "RecordIO", "TFRecord"),
        assemble=_one_of("AssembleWith", output, "None", "Line"),
        strategy=STRATEGIES.get(_one_of("BatchStrategy", request, "", *STRATEGIES)),
        max_concurrent=_whole("MaxConcurrentTransforms", request, 0, 100_000) or None,  # 0: ask the container
        max_payload_mb=_whole("MaxPayloadInMB", request, 0, 100),
        timeout_seconds=_whole("InvocationsTimeoutInSeconds", client, 1, 3600, 600) or 600,
        max_retries=_whole("InvocationsMaxRetries", client, 0, 3, 3) or 0,
        num_instances=_whole("InstanceCount", request.get("TransformResources", {}), 1, 100, 1) or 1,
        environment=_environment(request.get("Environment", {})),
        processing=parse_data_processing(request.get("DataProcessing", {})),
    )
    _check_together(parsed)
    return parsed


def build_environment(request: TransformRequest) -> dict[str, str]:
    """The container's variables: SAGEMAKER_BATCH always, the others only where the job sets them."""
    stated = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": request.max_payload_mb,
        "SAGEMAKER_BATCH_STRATEGY": request.strategy,
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": request.max_concurrent,
    }
    return {
        **request.environment,
        "SAGEMAKER_BATCH": "true",
        **{name: str(value) for name, value in stated.items() if value is not None},
    }


def resolve_parameters(request: TransformRequest, answered: Mapping[str, Any]) -> Parameters:
    """The job's word before the container's (`answered` by /execution-parameters) before the defaults.

    Raises LocalError for an answer outside the limits.
    """
    source = "/execution-parameters"
    concurrent = _whole("MaxConcurrentTransforms", answered, 0, 100_000, 0, source)
    payload_mb = _whole("MaxPayloadInMB", answered, 0, 100, DEFAULT_PAYLOAD_MB, source)
    spellings = {**STRATEGIES, **{value: value for value in STRATEGIES.values()}}
    strategy = spellings[_one_of("BatchStrategy", answered, DEFAULT_STRATEGY, *spellings)]
    parameters = Parameters(
        max_concurrent=request.max_concurrent or concurrent or DEFAULT_CONCURRENT,
        is_single_record=(request.strategy or strategy) == "SINGLE_RECORD",
        max_payload_mb=int(payload_mb or 0) if request.max_payload_mb is None else request.max_payload_mb,
    )
    _check_product(parameters.max_concurrent, parameters.max_payload_mb)
    return parameters


def _check_together(request: TransformRequest) -> None:
    """What no field can say alone."""
    if request.max_concurrent and request.max_payload_mb:
        _check_product(request.max_concurrent, request.max_payload_mb)
    if request.destination.resolve().is_relative_to(request.source.resolve()):
        raise LocalError(
            f"The output {request.destination} lies inside the input {request.source}, so the answers would "
            "be transformed by the next job; choose a folder beside it."
        )
    request.processing.check(
        content_type=request.content_type,
        accept=request.accept,
        split=request.split,
        assemble=request.assemble,
    )


def _check_product(max_concurrent: int, max_payload_mb: int) -> None:
    if max_concurrent * max_payload_mb > CONCURRENCY_TIMES_MB:
        raise LocalError(
            f"MaxConcurrentTransforms={max_concurrent} x MaxPayloadInMB={max_payload_mb} is "
            f"{max_concurrent * max_payload_mb}; SageMaker allows up to {CONCURRENCY_TIMES_MB}."
        )


def _path(name: str, value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise LocalError(f"{name} is missing; give a folder.")
    if str(value).startswith("s3://"):
        raise LocalError(f"{name}={str(value)!r} is on S3; copy it here first and give the folder.")
    return Path(str(value).removeprefix("file://"))


def _one_of(name: str, mapping: Mapping[str, Any], default: str, *others: str) -> str:
    value = mapping.get(name, default)
    allowed = [choice for choice in (default, *others) if choice]
    if value not in (default, *others):
        raise LocalError(f"{name}={value!r} is not allowed; set it to {' or '.join(dict.fromkeys(allowed))}.")
    return str(value)


def _whole(
    name: str,
    mapping: Mapping[str, Any],
    least: int,
    most: int,
    default: int | None = None,
    source: str = "the job",
) -> int | None:
    value = mapping.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise LocalError(f"{name}={value!r} of {source} is not a whole number from {least} to {most}.")
    return value


def _environment(environment: Mapping[str, Any]) -> dict[str, str]:
    if len(environment) > MOST_ENVIRONMENT_ENTRIES:
        raise LocalError(
            f"Environment has {len(environment)} entries; {MOST_ENVIRONMENT_ENTRIES} are allowed."
        )
    for name, value in environment.items():
        if not ENVIRONMENT_NAME.fullmatch(name):
            raise LocalError(f"Environment: {name!r} is no name of a variable; use letters, digits and _.")
        if not isinstance(value, str) or len(value) > MOST_ENVIRONMENT_CHARACTERS:
            raise LocalError(
                f"Environment: {name} must be text of up to {MOST_ENVIRONMENT_CHARACTERS} characters."
            )
    return dict(environment)
