"""An artifact's own `code/inference.py`, with the functions and signatures of SageMaker's inference toolkit.

    model_fn(model_dir)                      predict_fn(data, model)
    input_fn(request_body, content_type)     output_fn(prediction, accept)

Each may take one more argument, the toolkit's `context`, None here: it belongs to another server.
Stages that are not defined are Kennel's own. `transform_fn` and the toolkit's hooks are refused, not ignored.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Bundle, BundleError, verify_files
from artifact.preprocess import Preprocess
from serving.errors import CodeError
from serving.messages import CSV, JSON

CODE = "code"
INFERENCE = "code/inference.py"
STAGES = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2}  # name -> arguments without context
UNSUPPORTED = ("transform_fn", "pre_model_fn", "model_warmup_fn")
TEXT_TYPES = (JSON, CSV)  # input_fn gets str for these, as from the toolkit, and bytes for the rest

logger = logging.getLogger(__name__)

Stage = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Overrides:
    """The stages that the artifact brings; a missing one is None."""

    model_fn: Stage | None = None
    input_fn: Stage | None = None
    predict_fn: Stage | None = None
    output_fn: Stage | None = None


@dataclass(slots=True, kw_only=True)
class OverriddenPredictor:
    """What the artifact's model_fn returned, or Kennel's own predictor, and the stages around it."""

    model: Any
    overrides: Overrides
    labels: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    concurrency: int = 1
    max_batch: int = 1

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) -> (N, num_classes), where the model is Kennel's own."""
        answer: NDArray[np.float32] = self.model.predict(pixels)
        return answer


def read_overrides(bundle: Bundle, *, allow_code: bool, is_signed: bool) -> Overrides | None:
    """The artifact's own stages; None where it has none or may not run them, which one log line says.

    Raises CodeError, or BundleError for code that the manifest lists otherwise, or, being signed, not at all.
    """
    path = bundle.path(INFERENCE)
    if not path.is_file():
        return None
    if not allow_code:
        logger.warning("event=code_ignored file=%s reason=KENNEL_ALLOW_CODE is not 1", INFERENCE)
        return None
    _verify_code(bundle, is_signed=is_signed)
    module = _import_code(path)
    for name in UNSUPPORTED:
        if hasattr(module, name):
            raise CodeError(f"{path} defines {name}, which is not supported; use {', '.join(STAGES)}.")
    overrides = Overrides(**{name: _read_stage(path, module, name) for name in STAGES})
    logger.warning(
        "event=code_runs file=%s stages=%s",
        INFERENCE,
        ",".join(name for name in STAGES if hasattr(module, name)),
    )
    return overrides


def load_model(stage: Stage, model_dir: Path) -> Any:
    """What the artifact's model_fn returns. Raises CodeError."""
    try:
        return call_stage(stage, str(model_dir))
    except Exception as error:  # not our code: it may raise anything
        raise CodeError(
            f"model_fn of {model_dir / INFERENCE} failed ({type(error).__name__}: {error})."
        ) from error


def call_stage(stage: Stage, *arguments: Any) -> Any:
    """With the toolkit's context, None, as a last argument where the function has room for it."""
    takes_context = len(inspect.signature(stage).parameters) == len(arguments) + 1
    return stage(*arguments, None) if takes_context else stage(*arguments)


def read_request_body(body: bytes, content_type: str | None) -> str | bytes:
    """As the toolkit hands it to input_fn. Raises UnicodeDecodeError."""
    return body.decode() if (content_type or "").partition(";")[0].strip().lower() in TEXT_TYPES else body


def read_response(returned: Any, accept: str) -> tuple[bytes, str]:
    """output_fn's return value: the body, or (body, content type). Raises TypeError for anything else."""
    body, content_type = returned if isinstance(returned, tuple) else (returned, accept)
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes | bytearray) or not isinstance(content_type, str):
        raise TypeError(
            f"output_fn returned {type(body).__name__}, not str or bytes, or either with a content type"
        )
    return bytes(body), content_type


def _verify_code(bundle: Bundle, *, is_signed: bool) -> None:
    """SageMaker's SDK adds code to a finished artifact, so without a signature it may be unlisted."""
    folder = bundle.path(CODE)
    names = [path.relative_to(bundle.directory).as_posix() for path in folder.rglob("*") if path.is_file()]
    unlisted = sorted(name for name in names if name not in bundle.manifest.files)
    if is_signed and unlisted:
        raise BundleError(
            f"{bundle.path(unlisted[0])} is not in the signed manifest; write the manifest again and sign it."
        )
    verify_files(bundle, (name for name in names if name in bundle.manifest.files))


def _import_code(path: Path) -> ModuleType:
    """As the module `inference`, with its folder on sys.path: it may bring modules of its own."""
    sys.dont_write_bytecode = True  # the model's folder is read-only, and its files are all accounted for
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("inference", path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # not our code: it may raise anything
        raise CodeError(f"{path} cannot be imported ({type(error).__name__}: {error}).") from error
    return module


def _read_stage(path: Path, module: ModuleType, name: str) -> Stage | None:
    stage: Stage | None = getattr(module, name, None)
    if stage is None:
        return None
    count = STAGES[name]
    if not callable(stage) or len(inspect.signature(stage).parameters) not in (count, count + 1):
        raise CodeError(f"{path}: {name} must take {count} arguments, or {count + 1} with context.")
    return stage
