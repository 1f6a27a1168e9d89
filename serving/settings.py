"""The server's settings: environment variables, cast once. `SETTINGS` is the table the docs print."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from artifact.cores import available_cores
from artifact.preprocess import MAX_PIXELS
from artifact.signature import PublicKey, SignatureError, parse_public_key
from serving.errors import SettingsError
from serving.remote import parse_url_allow

AUTO = "auto"
MIB = 1024 * 1024
WORKERS_PER_FRONT = 8
BATCH_PRODUCT_MB = 100  # SageMaker's limit on MaxConcurrentTransforms x MaxPayloadInMB
BATCH_PAYLOAD = "SAGEMAKER_MAX_PAYLOAD_IN_MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment asks for, typed; SETTINGS says what each one means."""

    port: int
    model_dir: Path
    engine: str
    precision: str
    workers: int
    queue_limit: int
    stuck_seconds: int
    graph_cache: Path
    max_pixels: int
    max_payload_mb: int
    max_images: int
    url_allow: tuple[str, ...]
    public_key: PublicKey | None
    allow_code: bool
    batch_payload_mb: int | None
    batch_concurrency: int
    batch_strategy: str
    log_level: str
    log_format: str
    emf: bool
    page: bool

    @property
    def threads_per_worker(self) -> int:
        """Threads of one inference: the cores shared out evenly."""
        return max(1, available_cores() // self.workers)

    @property
    def fronts(self) -> int:
        """HTTP processes: one keeps about WORKERS_PER_FRONT processes busy that predict."""
        return math.ceil(self.workers / WORKERS_PER_FRONT)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        chosen = next((name for name in names if name.lower() == text.lower()), None)
        if chosen is None:
            raise ValueError(" or ".join(names))
        return chosen

    return parse


def _flag(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


def _workers(text: str) -> int:
    """0 for auto."""
    try:
        return 0 if text == AUTO else _integer(1, 256)(text)
    except ValueError as error:
        raise ValueError(f"{AUTO} or {error}") from error


def _payload_mb(text: str) -> int:
    return _integer(0, BATCH_PRODUCT_MB)(text) or BATCH_PRODUCT_MB


def _public_key(text: str) -> PublicKey | None:
    if not text:
        return None
    try:
        return parse_public_key(text if text.startswith("RW") else Path(text).read_text(encoding="utf-8"))
    except SignatureError as error:
        raise ValueError(f"a minisign public key, or the path of its file; this {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a minisign public key, or the path of its file ({error})") from error


class Setting(NamedTuple):
    """Where one setting comes from; of several variables the first that is set and not empty counts."""

    variables: tuple[str, ...]
    default: str
    parse: Callable[[str], Any]  # raises ValueError saying what is allowed
    meaning: str


SETTINGS = {
    "port": Setting(("SAGEMAKER_BIND_TO_PORT",), "8080", _integer(1, 65535), "Port to listen on."),
    "model_dir": Setting(("KENNEL_MODEL_DIR",), "/opt/ml/model", Path, "Folder of the unpacked artifact."),
    "engine": Setting(
        ("KENNEL_ENGINE",),
        "openvino",
        _one_of("openvino", "torch"),
        "Library that predicts; serving-gpu sets torch, which the CPU image does not have.",
    ),
    "precision": Setting(
        ("KENNEL_PRECISION",),
        AUTO,
        str,
        "Precision that answers; auto is the fastest the trainer kept and this processor computes natively.",
    ),
    "workers": Setting(
        ("KENNEL_WORKERS", "SAGEMAKER_MODEL_SERVER_WORKERS"),
        AUTO,
        _workers,
        "Processes that predict, each with its own copy of the model; auto is one per core, or per GPU.",
    ),
    "queue_limit": Setting(
        ("KENNEL_QUEUE_LIMIT",),
        "96",
        _integer(1, 100_000),
        "Requests that may wait for a free process; more are answered 503 with Retry-After at once.",
    ),
    "stuck_seconds": Setting(
        ("KENNEL_STUCK_SECONDS",),
        "60",
        _integer(1, 3600),
        "A process silent for so long over a request is replaced, its stacks in the log.",
    ),
    "graph_cache": Setting(
        ("KENNEL_GRAPH_CACHE",),
        "/tmp/kennel-cache",
        Path,
        "Folder of compiled graphs, so that a restart does not compile; not used where it cannot be written.",
    ),
    "max_pixels": Setting(
        ("KENNEL_MAX_PIXELS",),
        str(MAX_PIXELS),
        _integer(1, MAX_PIXELS),
        "Pictures with more pixels are refused before they are decoded.",
    ),
    "max_payload_mb": Setting(
        ("KENNEL_MAX_PAYLOAD_MB", BATCH_PAYLOAD),
        "25",
        _payload_mb,
        f"Larger bodies are refused, in MiB; 0, which Batch Transform sets to stream, is {BATCH_PRODUCT_MB}.",
    ),
    "max_images": Setting(
        ("KENNEL_MAX_IMAGES",),
        "1000",
        _integer(1, 100_000),
        "Requests with more pictures than this are refused.",
    ),
    "url_allow": Setting(
        ("KENNEL_URL_ALLOW",),
        "",
        parse_url_allow,
        "Prefixes, between commas, of addresses that pictures in JSON may be fetched from; empty is none.",
    ),
    "public_key": Setting(
        ("KENNEL_PUBLIC_KEY",),
        "",
        _public_key,
        "minisign public key, or its file, with which the artifact's manifest must be signed; empty is any.",
    ),
    "allow_code": Setting(
        ("KENNEL_ALLOW_CODE",),
        "0",
        _flag,
        "1 runs the artifact's own `code/inference.py`; otherwise it is ignored.",
    ),
    "batch_payload_mb": Setting(
        (BATCH_PAYLOAD,),
        AUTO,
        lambda text: None if text == AUTO else _integer(0, BATCH_PRODUCT_MB)(text),
        "MaxPayloadInMB of /execution-parameters; Batch Transform sets it. auto: what concurrency leaves.",
    ),
    "batch_concurrency": Setting(
        ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",),
        "0",
        _integer(0, 1_000_000),
        "MaxConcurrentTransforms of /execution-parameters; 0 is two per process. Batch Transform sets it.",
    ),
    "batch_strategy": Setting(
        ("SAGEMAKER_BATCH_STRATEGY",),
        "SINGLE_RECORD",
        _one_of("SINGLE_RECORD", "MULTI_RECORD"),
        "BatchStrategy of /execution-parameters; Batch Transform sets it.",
    ),
    "log_level": Setting(
        ("KENNEL_LOG_LEVEL",),
        "INFO",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "Least severe level written to the log.",
    ),
    "log_format": Setting(
        ("KENNEL_LOG_FORMAT",),
        AUTO,
        _one_of(AUTO, "json", "text"),
        "Form of a log line; auto is text on a terminal, and JSON elsewhere.",
    ),
    "emf": Setting(
        ("KENNEL_EMF",),
        "0",
        _flag,
        "1 writes the metrics to stdout once a minute in CloudWatch's embedded metric format.",
    ),
    "page": Setting(
        ("KENNEL_PAGE",),
        "1",
        _flag,
        "0 leaves out the try-it page, `/model.json` and `/endpoints/NAME/invocations`.",
    ),
}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Every setting, cast. Raises SettingsError naming the variable, its value and what is allowed."""
    values = {name: _read_setting(setting, environ) for name, setting in SETTINGS.items()}
    values["workers"] = values["workers"] or _choose_workers(values["engine"])
    return Settings(**values)


def warn_of_misspelt_settings(environ: Mapping[str, str], logger: logging.Logger) -> None:
    """Unknown KENNEL_* names may be another tool's, so only near misses are named, and none is refused."""
    known = {variable for setting in SETTINGS.values() for variable in setting.variables}
    for name in sorted(name for name in environ if name.startswith("KENNEL_") and name not in known):
        for nearest in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            logger.warning("%s is not a setting and is ignored; did you mean %s?", name, nearest)


def _choose_workers(engine: str) -> int:
    """One per GPU, which gathers batches from many threads; without any, torch's threads use the cores."""
    return max(1, count_gpus()) if engine == "torch" else available_cores()


def count_gpus() -> int:
    """NVIDIA GPUs this container sees, without importing anything that knows."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _read_setting(setting: Setting, environ: Mapping[str, str]) -> Any:
    variable = next((name for name in setting.variables if environ.get(name)), setting.variables[0])
    value = environ.get(variable) or setting.default
    try:
        return setting.parse(value)
    except ValueError as error:
        raise SettingsError(f"{variable}={value!r} is not allowed; set it to {error}.") from error
