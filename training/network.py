"""Weights into networks: state dicts, ImageNet's, frozen backbones. Networks are in artifact/network.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from artifact.network import head_path
from training.job import JobError

logger = logging.getLogger(__name__)

AUXILIARY_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")


def freeze_backbone(network: nn.Module) -> None:
    """Only the head learns; `set_training_mode` keeps the backbone's batch norms as they are."""
    network.requires_grad_(False)
    network.get_submodule(head_path(network)).requires_grad_(True)


def set_training_mode(network: nn.Module, *, frozen: bool) -> None:
    """Training mode; with a frozen backbone for the head alone."""
    network.train(not frozen)
    if frozen:
        network.get_submodule(head_path(network)).train()


def find_blocks(network: nn.Module) -> list[str]:
    """Paths of the layers between input and output, the head last: what learns at a rate of its own.

    A part that holds over half of the weights is split, down to the numbered blocks of a sequence.
    """
    head = head_path(network)
    half = _count_weights(network) / 2

    def split(module: nn.Module, path: str) -> list[str]:
        children = [(name, child) for name, child in module.named_children() if _count_weights(child)]
        is_block = path.rpartition(".")[2].isdigit() or len(children) < 2 or _count_weights(module) <= half
        if path and not head.startswith(f"{path}.") and (is_block or path == head):
            return [path]
        return [part for name, child in children for part in split(child, f"{path}.{name}".lstrip("."))]

    return [path for path in split(network, "") if path != head] + [head]


def block_of(parameter: str, blocks: list[str]) -> int:
    """The block that a parameter belongs to by its name; what lies between blocks goes with the first."""
    return next((index for index, path in enumerate(blocks) if f"{parameter}.".startswith(f"{path}.")), 0)


def unfreeze_blocks(network: nn.Module, *, epoch: int, over_epochs: int) -> None:
    """Let the head learn in epoch 0, and one block after another, from the last, until `over_epochs`.

    What does not learn yet is in evaluation mode: its batch norms stay as they are.
    """
    blocks = find_blocks(network)
    learning = 1 + (len(blocks) - 1) * min(epoch, over_epochs) // over_epochs
    first = len(blocks) - learning
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(block_of(name, blocks) >= first)
    for path in blocks[:first]:
        network.get_submodule(path).eval()


def _count_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def load_backbone(network: nn.Module, stored: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights by name; a head of another shape stays random. Raises JobError if more differs."""
    fitting, differing = _match(network, stored)
    head = f"{head_path(network)}."
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


def _first_sentence(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
    )
