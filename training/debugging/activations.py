"""What comes out of a network's activation functions, seen by forward hooks on recorded steps only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from training.debugging.reductions import count_inactive, reduce_tensors
from training.debugging.series import ACTIVATIONS, SATURATING

LARGEST_SAMPLE = 2**16  # values of one layer: all images of a batch, fewer places in each

# Beyond these the function is flat: SaturatedActivation's documented defaults, asymmetric as they are.
FLAT_BEYOND = {"Sigmoid": (-23.0, 16.99999), "Tanh": (-9.4999, 9.4999)}


class ActivationHooks:
    """Collects values while `is_wanted` says so; `watching` times what that costs."""

    def __init__(
        self,
        network: nn.Module,
        *,
        is_wanted: Callable[[], bool],
        watching: Callable[[], AbstractContextManager[None]],
        flat_beyond: Mapping[str, tuple[float, float]] = FLAT_BEYOND,
    ) -> None:
        self._is_wanted = is_wanted
        self._watching = watching
        self._flat_beyond = flat_beyond
        self._values: dict[str, dict[str, float]] = {}
        self._calls: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []
        for name, module in network.named_modules():
            kind = type(module).__name__
            if kind in ACTIVATIONS:
                self._handles.append(module.register_forward_hook(self._hook(name, kind)))

    def take(self) -> dict[str, dict[str, float]]:
        """What was collected since the last call, by tensor name."""
        values, self._values = self._values, {}
        self._calls.clear()
        return values

    def remove(self) -> None:
        """The network is as it was."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, kind: str) -> Callable[[nn.Module, Any, Any], None]:
        def collect(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._is_wanted():
                return
            with self._watching():
                number = self._calls[name]
                self._calls[name] += 1
                self._values[f"{name}_output_{number}"] = _describe(output, 0.0, math.inf)
                if kind in SATURATING:
                    low, high = self._flat_beyond[kind]
                    flat = {"low": low, "high": high}
                    self._values[f"{name}_input_{number}"] = _describe(inputs[0], low, high) | flat

        return collect


def thin_out(values: Tensor) -> Tensor:
    """About LARGEST_SAMPLE values at most: fewer places of (N, C, H, W), fewer rows of anything else."""
    stride = math.isqrt(max(0, values.numel() - 1) // LARGEST_SAMPLE) + 1
    if values.ndim == 4:
        return values.detach()[:, :, ::stride, ::stride].float()
    return values.detach()[: max(1, len(values) // stride**2)].float()


@torch.no_grad()
def _describe(values: Tensor, low: float, high: float) -> dict[str, float]:
    sample = thin_out(values)
    return reduce_tensors([sample])[0] | count_inactive(sample, low=low, high=high)
