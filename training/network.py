"""The networks: our own small `cnn`, and every torchvision classification architecture with a new head."""

from __future__ import annotations

import difflib
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from artifact.preprocess import Preprocess
from training.job import JobError

logger = logging.getLogger(__name__)

# Auxiliary classifiers only help training from scratch and do not survive a change of head.
EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
# Their ImageNet weights expect inputs scaled to -1..1; torchvision rescales inside when told to.
PRETRAINED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True},
    "inception_v3": {"transform_input": True},
}
AUXILIARY_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")


class PixelNetwork(nn.Module):
    """What is exported and served: uint8 (N, H, W, 3) RGB pixels -> logits (N, num_classes) float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(preprocess.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).reshape(1, 3, 1, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, as torchvision's ToTensor and Normalize."""
        return (pixels.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(pixels))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut (He et al. 2016); `stride` divides the side."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(channels_in, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.convolutions(features) + self.shortcut(features))


class Cnn(nn.Module):
    """A residual network small enough to train from scratch on a processor: 32-64-128-256 channels."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential(*(ResidualBlock(*pair, stride=2) for pair in itertools.pairwise(widths)))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem(images))
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class Head(nn.Sequential):
    """A custom classifier in place of a network's last linear layer: [linear, ReLU,] dropout, linear."""

    def __init__(self, features: int, num_classes: int, *, hidden: int, dropout: float) -> None:
        layers: list[nn.Module] = [nn.Linear(features, hidden), nn.ReLU()] if hidden else []
        super().__init__(*layers, nn.Dropout(dropout), nn.Linear(hidden or features, num_classes))


def architectures() -> list[str]:
    """Every name `build_network` accepts."""
    return ["cnn", *torchvision.models.list_models(module=torchvision.models)]


def build_network(
    architecture: str, num_classes: int, *, head_hidden: int = 0, dropout: float = 0.0
) -> nn.Module:
    """A network with random weights (from torch's global generator). Raises JobError for an unknown name."""
    if architecture == "cnn":
        network: nn.Module = Cnn(num_classes)
    elif architecture in architectures():
        network = torchvision.models.get_model(
            architecture, weights=None, num_classes=num_classes, **EXTRA_ARGUMENTS.get(architecture, {})
        )
    else:
        near = difflib.get_close_matches(architecture, architectures(), n=3, cutoff=0.4)
        raise JobError(
            f"Unknown architecture {architecture!r}. Nearest: {', '.join(near) or 'none'}; "
            "any torchvision classification architecture or cnn can be named."
        )
    if head_hidden or dropout:
        _replace_head(network, architecture, head_hidden, dropout)
    return network


def freeze_backbone(network: nn.Module) -> None:
    """Only the head learns; `set_training_mode` keeps the backbone's batch norms as they are."""
    network.requires_grad_(False)
    network.get_submodule(_head_path(network)).requires_grad_(True)


def set_training_mode(network: nn.Module, *, frozen: bool) -> None:
    """Training mode; with a frozen backbone for the head alone."""
    network.train(not frozen)
    if frozen:
        network.get_submodule(_head_path(network)).train()


def load_backbone(network: nn.Module, stored: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights by name; a head of another shape stays random. Raises JobError if more differs."""
    fitting, differing = _match(network, stored)
    head = f"{_head_path(network)}."
    _refuse([name for name in differing if not name.startswith(head)], source)
    network.load_state_dict(fitting, strict=False)
    logger.info("weights=%s loaded=%d fresh=%s", source, len(fitting), ",".join(differing) or "none")


def load_weights(network: nn.Module, stored: Mapping[str, Tensor], *, source: str) -> None:
    """Copy all weights by name. Raises JobError if anything differs, the head included."""
    fitting, differing = _match(network, stored)
    _refuse(differing, source)
    network.load_state_dict(fitting)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or torch.save's read with weights_only. Raises JobError otherwise."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in (".safetensors", ".pth", ".pt"))
        if not files:
            raise JobError(f"{path} holds no .safetensors, .pth or .pt file to initialize the backbone from.")
        path = files[0]
    if not path.is_file():
        raise JobError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise their own, unrelated errors for a bad file
        raise JobError(
            f"{path} cannot be read as weights only ({_first_sentence(error)}). Save it as "
            "torch.save(network.state_dict(), path)."
        ) from error
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise JobError(f"{path} holds {type(stored).__name__}, not a state dict (name -> tensor).")
    return stored


def download_pretrained(architecture: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights. Raises JobError naming the options where there is no network."""
    if architecture == "cnn":
        raise JobError("There are no ImageNet weights for cnn: set pretrained=false.")
    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    try:
        stored: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise JobError(
            f"The ImageNet weights of {architecture} cannot be downloaded ({_first_sentence(error)}): give a "
            "file with --weights PATH (a `weights` channel on SageMaker), or set pretrained=false to start "
            "from random weights."
        ) from error
    return stored


def _match(network: nn.Module, stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that fit by name and shape, and the sorted names of those that do not, on either side."""
    stored = {
        name.removeprefix("module."): tensor  # DataParallel's prefix
        for name, tensor in stored.items()
        if not name.startswith(AUXILIARY_PREFIXES)
    }
    own = network.state_dict()
    fitting = {name: t for name, t in stored.items() if name in own and own[name].shape == t.shape}
    return fitting, sorted((own.keys() | stored.keys()) - fitting.keys())


def _refuse(differing: list[str], source: str) -> None:
    if differing:
        raise JobError(
            f"{source} does not hold this network's weights: {len(differing)} tensors are missing, unknown "
            f"or of another shape, for instance {', '.join(differing[:3])}. Is the architecture right?"
        )


def _head_path(network: nn.Module) -> str:
    """Dotted path of the head: the last layer with weights, which alone follows the number of classes."""
    layers: list[str] = [
        path for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    parent = layers[-1].rpartition(".")[0]
    return parent if parent and isinstance(network.get_submodule(parent), Head) else layers[-1]


def _replace_head(network: nn.Module, architecture: str, hidden: int, dropout: float) -> None:
    path = _head_path(network)
    last = network.get_submodule(path)
    if not isinstance(last, nn.Linear):
        raise JobError(
            f"{architecture} ends in {type(last).__name__}, not a linear layer: "
            "leave head_hidden and dropout at 0."
        )
    parent, _, name = path.rpartition(".")
    head = Head(last.in_features, last.out_features, hidden=hidden, dropout=dropout)
    setattr(network.get_submodule(parent), name, head)


def _first_sentence(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
    )
