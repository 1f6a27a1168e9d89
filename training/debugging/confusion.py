"""What was predicted for what, counted."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEWEST_IMAGES = 500  # in one record: ClassImbalance looks at so many


def count_confusion(
    predicted: NDArray[np.int64], targets: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """(num_classes, num_classes): right label, then predicted."""
    flat = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


class TrainingConfusion:
    """Adds up training batches on the device, until there are as many images as make a record worth it."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._num_classes = num_classes
        self._counts = torch.zeros(num_classes**2, dtype=torch.int64, device=device)
        self.images = 0

    @property
    def is_due(self) -> bool:
        """The matrix grows with the square of the classes, and with it what a record takes."""
        return self.images >= max(FEWEST_IMAGES, self._num_classes**2 // 4)

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Tensor) -> None:
        """(n, num_classes) and (n,); does not wait for the device."""
        cells = targets * self._num_classes + logits.argmax(dim=1)
        self._counts.index_add_(0, cells, torch.ones_like(cells))
        self.images += len(targets)

    def take(self) -> list[list[int]]:
        """The counts since the last call, as `count_confusion`."""
        counts: list[list[int]] = self._counts.view(self._num_classes, -1).tolist()
        self._counts.zero_()
        self.images = 0
        return counts
