"""The network that all train: the same for Kennel and its peers."""

from __future__ import annotations

import torch
from torch import nn

from artifact.network import build_network, head_path


def open_network(architecture: str, num_classes: int, weights: str) -> nn.Module:
    """Random weights; with `weights` those of a backbone, which is frozen, as in torch's tutorial."""
    torch.manual_seed(0)
    network = build_network(architecture, num_classes)
    if weights:
        head = head_path(network)
        stored = torch.load(weights, weights_only=True)
        network.load_state_dict(
            {name: t for name, t in stored.items() if not name.startswith(f"{head}.")}, strict=False
        )
        network.requires_grad_(False)
        network.get_submodule(head).requires_grad_(True)
    return network
