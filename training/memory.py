"""When memory runs out: a step is tried again with fewer images at once through the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# What allocators say, beside torch.OutOfMemoryError and MemoryError: torch's own, oneDNN's, C++'s.
SENTENCES = (
    "can't allocate memory",
    "not enough memory",
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in SENTENCES)


class RunningStatistics:
    """Of the batch norms that learn, as they were before a step that may fail halfway."""

    def __init__(self, network: nn.Module) -> None:
        self._buffers: list[Tensor] = [
            buffer
            for module in network.modules()
            if isinstance(module, _BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
        ]
        self._copies = [buffer.clone() for buffer in self._buffers]

    def restore(self) -> None:
        """What a failed try moved."""
        with torch.no_grad():
            for buffer, copy in zip(self._buffers, self._copies, strict=True):
                buffer.copy_(copy)
