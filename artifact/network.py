"""The networks that weights fit: our own small `cnn`, and torchvision's with a new head. Needs torch.

Shared by the trainer and the server's torch engine, so that weights mean the same network on both sides.
"""

from __future__ import annotations

import difflib
import itertools
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from artifact.preprocess import Preprocess

# Auxiliary classifiers only help training from scratch and do not survive a change of head. The ImageNet
# weights of these two expect inputs scaled to -1..1; torchvision rescales inside when told to.
EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True, "transform_input": True},
    "inception_v3": {"aux_logits": False, "init_weights": True, "transform_input": True},
}


class ArchitectureError(ValueError):
    """There is no such network; the message names the nearest."""


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
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
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
    """Random weights, from torch's global generator. Raises ArchitectureError for an unknown name."""
    if architecture == "cnn":
        network: nn.Module = Cnn(num_classes)
    elif architecture in architectures():
        network = torchvision.models.get_model(
            architecture, weights=None, num_classes=num_classes, **EXTRA_ARGUMENTS.get(architecture, {})
        )
    else:
        near = difflib.get_close_matches(architecture, architectures(), n=3, cutoff=0.4)
        raise ArchitectureError(
            f"Unknown architecture {architecture!r}. Nearest: {', '.join(near) or 'none'}; "
            "any torchvision classification architecture or cnn can be named."
        )
    if head_hidden or dropout:
        _replace_head(network, architecture, head_hidden, dropout)
    return network


def head_path(network: nn.Module) -> str:
    """Dotted path of the head: the last layer with weights, which alone follows the number of classes."""
    layers: list[str] = [
        path for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    parent = layers[-1].rpartition(".")[0]
    return parent if parent and isinstance(network.get_submodule(parent), Head) else layers[-1]


def _replace_head(network: nn.Module, architecture: str, hidden: int, dropout: float) -> None:
    path = head_path(network)
    last = network.get_submodule(path)
    if not isinstance(last, nn.Linear):
        raise ArchitectureError(
            f"{architecture} ends in {type(last).__name__}, not a linear layer: "
            "leave head_hidden and dropout at 0."
        )
    parent, _, name = path.rpartition(".")
    head = Head(last.in_features, last.out_features, hidden=hidden, dropout=dropout)
    setattr(network.get_submodule(parent), name, head)
