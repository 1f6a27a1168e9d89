"""The optimizer, its groups of parameters, and the learning rate by optimizer step."""

from __future__ import annotations

import math

import torch

from artifact.network import PixelNetwork
from training.hyperparameters import Hyperparameters
from training.network import block_of, find_blocks


def build_optimizer(network: PixelNetwork, hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; weight decay only on parameters of two or more dimensions.

    With `layer_decay` each block of layers has groups of its own, whose `scale` is its share of the rate.
    """
    learning = [(name, p) for name, p in network.network.named_parameters() if p.requires_grad]
    blocks = find_blocks(network.network) if hyperparameters.layer_decay < 1.0 else [""]
    groups = []
    for index, block in reversed(list(enumerate(blocks))):
        members = [p for name, p in learning if not block or block_of(name, blocks) == index]
        scale = hyperparameters.layer_decay ** (len(blocks) - 1 - index)
        for decay, chosen in (
            (hyperparameters.weight_decay, [p for p in members if p.ndim > 1]),
            (0.0, [p for p in members if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    if hyperparameters.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=hyperparameters.learning_rate)
    momentum = hyperparameters.momentum
    return torch.optim.SGD(groups, lr=hyperparameters.learning_rate, momentum=momentum, nesterov=momentum > 0)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, step: int, steps_per_epoch: int
) -> float:
    """Of every group for optimizer step `step` of the job, by its scale; returns the head's."""
    rate = learning_rate(
        step,
        schedule=hyperparameters.schedule,
        peak=hyperparameters.learning_rate,
        warmup_steps=round(hyperparameters.warmup_epochs * steps_per_epoch),
        total_steps=hyperparameters.epochs * steps_per_epoch,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def learning_rate(step: int, *, schedule: str, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up, then cosine to zero or constant; `step` counts optimizer updates from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
