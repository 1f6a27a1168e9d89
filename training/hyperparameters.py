"""Every hyperparameter of a training job: type, default, range and meaning, in one place.

SageMaker sends all of them as strings in /opt/ml/input/config/hyperparameters.json;
`parse_hyperparameters` is the border where the strings end. Stdlib only: the recipe reader and the
AWS planners import this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names people already send (the SageMaker examples' and argparse spellings), accepted beside our own.
ALIASES = {"lr": "learning_rate", "model": "architecture", "arch": "architecture", "num_epochs": "epochs"}

# The service and its SDKs add these to a job's hyperparameters; they are not ours to refuse.
SERVICE_PREFIXES = ("sagemaker_", "_tuning_")

AUGMENTATIONS = ("none", "photo", "aerial")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16")
DOCTOR = ("off", "warn", "strict")
QUANTIZE = ("auto", "off")
CLASS_WEIGHTS = ("none", "balanced")


class HyperparameterError(ValueError):
    """An unknown or unusable hyperparameter; the message names it, its value and what is allowed."""


def _field(default: Any, help: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """One training job's settings, typed and in range."""

    architecture: str = _field("resnet18", "`cnn`, or any torchvision classification architecture")
    pretrained: bool = _field(False, "start from torchvision's ImageNet weights (needs the network)")
    freeze_backbone: bool = _field(False, "train the head only")
    feature_views: int = _field(
        4,
        "with freeze_backbone: augmented views of each picture whose features are kept; 0 = keep none",
        low=0,
        high=1000,
    )
    feature_cache: str = _field(
        "auto", "folder of kept features; auto: the warm pool's, $KENNEL_CACHE or the temporary folder"
    )
    feature_cache_gb: float = _field(
        4.0, "of that folder in GB; the features unused for longest go", low=0.0, high=1e6
    )
    unfreeze_epochs: int = _field(
        0,
        "epochs over which the backbone's blocks begin to learn, from the last; 0 = all at once",
        low=0,
        high=10_000,
    )
    layer_decay: float = _field(
        1.0, "learning rate of a block of layers, of that of the block after it", low=0.01, high=1.0
    )
    head_hidden: int = _field(
        0, "width of a hidden layer in the head; 0 = a plain linear head", low=0, high=8192
    )
    dropout: float = _field(0.0, "dropout before the head's last layer", low=0.0, high=0.95)
    epochs: int = _field(3, "passes over the training channel", low=1, high=10_000)
    batch_size: int = _field(64, "images per optimizer step", low=1, high=65_536)
    learning_rate: float = _field(0.01, "peak learning rate", low=1e-8, high=100.0)
    optimizer: str = _field("sgd", "sgd (Nesterov) or adamw", choices=OPTIMIZERS)
    momentum: float = _field(0.9, "sgd's momentum", low=0.0, high=0.9999)
    weight_decay: float = _field(
        5e-4, "decay of weight matrices (biases and norms are left out)", low=0.0, high=1.0
    )
    schedule: str = _field("cosine", "learning rate after warm-up", choices=SCHEDULES)
    warmup_epochs: float = _field(0.2, "epochs of linear warm-up from 0", low=0.0, high=1000.0)
    label_smoothing: float = _field(0.0, "share of the target spread over all classes", low=0.0, high=0.9)
    class_weights: str = _field(
        "none", "balanced: each class counts alike in the loss, however many images", choices=CLASS_WEIGHTS
    )
    mixup: float = _field(
        0.0, "alpha of mixup, pictures laid over each other; 0.2 is usual, 0 = off", low=0.0, high=100.0
    )
    cutmix: float = _field(
        0.0, "alpha of CutMix, a box from another picture; 1.0 is usual, 0 = off", low=0.0, high=100.0
    )
    clip_norm: float = _field(
        0.0, "gradients are scaled down to this norm; 1.0 is usual, 0 = off", low=0.0, high=1e6
    )
    ema_decay: float = _field(
        0.0,
        "a moving average of the weights is evaluated and exported; 0.999 is usual, 0 = off",
        low=0.0,
        high=0.999999,
    )
    patience: int = _field(
        0, "epochs without a better validation result after which the job ends; 0 = never", low=0, high=10_000
    )
    augmentation: str = _field(
        "photo",
        "none; photo (random resized crop, mirror); aerial (the 8 symmetries of the square, small shift)",
        choices=AUGMENTATIONS,
    )
    image_size: int = _field(224, "side of the square the network sees, in pixels", low=16, high=2048)
    resize: int = _field(0, "shorter side before the centre crop; 0 = image_size x 8 / 7", low=0, high=4096)
    precision: str = _field(
        "auto", "bf16 where the processor gains from it, or fp32 / bf16", choices=PRECISIONS
    )
    micro_batch: int = _field(
        0,
        "images at once through the network, gradients summed to batch_size; 0 = all, fewer out of memory",
        low=0,
        high=65_536,
    )
    seed: int = _field(0, "of weights, order and augmentation", low=0, high=2**31 - 1)
    checkpoint_steps: int = _field(0, "steps between checkpoints; 0 = at each epoch's end", low=0, high=10**9)
    restarts: int = _field(
        0, "times to start again from the checkpoint when a process was killed by a signal", low=0, high=100
    )
    max_unreadable: float = _field(
        0.01, "share of unreadable images above which the job fails", low=0.0, high=1.0
    )
    doctor: str = _field(
        "warn", "look at the data first and warn, refuse what is worth stopping for, or off", choices=DOCTOR
    )
    quantize: str = _field(
        "auto",
        "also export bf16 and int8 where they are as right as fp32 and faster, or fp32 only",
        choices=QUANTIZE,
    )

    debug: bool = _field(True, "record steps, tensors and machine, and judge them by rules")
    debug_interval: int = _field(
        0, "steps between two recordings of tensors; 0 = 20, fewer in a short job", low=0, high=10**6
    )
    debug_rules: str = _field(
        "all", "rules that look on: all, none, or as in docs/debugging.md; a recipe's [debugger] sets it"
    )
    profile_steps: int = _field(3, "steps whose operators are profiled, after 5; 0 = none", low=0, high=100)
    profile_interval_ms: int = _field(
        500, "milliseconds between two samples of the machine; 0 = none", low=0, high=60_000
    )
    smdebug: bool = _field(False, "also write smdebug's own output, as a job with DebugHookConfig does")

    @property
    def resize_side(self) -> int:
        """Shorter side in pixels before the centre crop: 256 for 224, as torchvision, unless given."""
        return self.resize or self.image_size * 8 // 7

    def to_strings(self) -> dict[str, str]:
        """As SageMaker wants them: every value a string; `parse_hyperparameters` reads them back."""
        return {field.name: _to_string(getattr(self, field.name)) for field in dataclasses.fields(self)}


NAMES = tuple(field.name for field in dataclasses.fields(Hyperparameters))


def parse_hyperparameters(raw: Mapping[str, str]) -> Hyperparameters:
    """hyperparameters.json -> typed values. Raises HyperparameterError naming the first bad one."""
    values: dict[str, Any] = {}
    for sent_name, text in raw.items():
        if sent_name.startswith(SERVICE_PREFIXES):
            continue
        name = canonical_name(sent_name)
        if name in values:
            raise HyperparameterError(
                f"Hyperparameter {name!r} is given twice (once as {sent_name!r}); keep one."
            )
        values[name] = parse_value(name, text)
    hyperparameters = Hyperparameters(**values)
    if 0 < hyperparameters.resize < hyperparameters.image_size:
        raise HyperparameterError(
            f"resize={hyperparameters.resize} is smaller than image_size={hyperparameters.image_size}; "
            "give a larger resize, or 0 for the default."
        )
    if hyperparameters.freeze_backbone and hyperparameters.unfreeze_epochs:
        raise HyperparameterError(
            f"unfreeze_epochs={hyperparameters.unfreeze_epochs} has no meaning with freeze_backbone=true; "
            "keep one of the two."
        )
    return hyperparameters


def canonical_name(sent_name: str) -> str:
    """`batch-size` and `lr` -> our name. Raises HyperparameterError naming the nearest known one."""
    name = sent_name.strip().replace("-", "_")
    name = ALIASES.get(name, name)
    if name in NAMES:
        return name
    nearest = difflib.get_close_matches(name, [*NAMES, *ALIASES], n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known: {', '.join(NAMES)}."
    raise HyperparameterError(f"Unknown hyperparameter {sent_name!r}. {hint}")


def parse_value(name: str, text: object) -> Any:
    """One value by its (canonical) name, from the string SageMaker sends or from a recipe's typed value."""
    field = _FIELDS[name]
    kind: Any = type(field.default)
    stripped = str(text).strip().strip('"')  # SDK v2 sends strings JSON-quoted
    try:
        value = _parse_bool(stripped) if kind is bool else kind(stripped)
    except ValueError:
        raise HyperparameterError(
            f"{name}={text!r} is not {_KIND_NAMES[kind]} ({field.metadata['help']})."
        ) from None
    _check_range(name, value, field.metadata)
    return value


def _check_range(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if "choices" in limits and value not in limits["choices"]:
        raise HyperparameterError(f"{name}={value!r} is not one of {', '.join(limits['choices'])}.")
    if "low" in limits and not (math.isfinite(value) and limits["low"] <= value <= limits["high"]):
        raise HyperparameterError(f"{name}={value} is outside {limits['low']} to {limits['high']}.")
    if value == "":
        raise HyperparameterError(f"{name} is empty; leave it out for the default.")


def _parse_bool(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError(text)


def _to_string(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_FIELDS = {field.name: field for field in dataclasses.fields(Hyperparameters)}
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
