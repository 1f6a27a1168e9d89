"""An exponential moving average of the weights (Polyak, Ruppert): smoother than the last step's."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from artifact.network import PixelNetwork

Tensors = tuple[Tensor, ...] | list[Tensor]


class Average:
    """Of a network's parameters and batch norm's running statistics, updated once a step."""

    def __init__(self, network: PixelNetwork, decay: float) -> None:
        def merge(averages: Tensors, currents: Tensors, num_averaged: Tensor | int) -> None:
            # Early on the average follows closely, as in TensorFlow's ExponentialMovingAverage.
            steps = int(num_averaged)
            share = 1.0 - min(decay, (1.0 + steps) / (10.0 + steps))
            with torch.no_grad():
                for average, current in zip(averages, currents, strict=True):
                    if average.is_floating_point():
                        average.lerp_(current, share)
                    else:  # batch norm's count of batches
                        average.copy_(current)

        self._average = AveragedModel(network, multi_avg_fn=merge, use_buffers=True)

    @property
    def network(self) -> PixelNetwork:
        """With the averaged weights."""
        return cast(PixelNetwork, self._average.module)

    def update(self, network: PixelNetwork) -> None:
        """After an optimizer step."""
        self._average.update_parameters(network)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(self._average.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._average.load_state_dict(state)
