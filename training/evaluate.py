"""Network and images -> log-probabilities and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from artifact.predictions import log_softmax
from training.data import ImageSet

# uint8 (N, H, W, 3) -> logits (N, num_classes) float32: a torch network or an exported graph
Classifier = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier makes of a whole split."""

    log_probabilities: NDArray[np.float64]  # (num_images, num_classes)
    loss: float  # mean cross-entropy
    top1_accuracy: float
    top5_accuracy: float  # of num_classes where there are fewer than 5

    def metrics(self) -> dict[str, float]:
        """As stored in the manifest."""
        return {"loss": self.loss, "top1_accuracy": self.top1_accuracy, "top5_accuracy": self.top5_accuracy}


def evaluate(classify: Classifier, images: ImageSet, *, batch_size: int) -> Evaluation:
    """Run every image once, in order."""
    batches = (slice(start, start + batch_size) for start in range(0, len(images), batch_size))
    logits = np.concatenate([classify(images.pixels[batch]) for batch in batches])
    return judge(logits, images.folder.targets)


def judge(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Evaluation:
    """(num_images, num_classes) and (num_images,)."""
    log_probabilities = log_softmax(logits)
    rows = np.arange(len(targets))
    # Rank of the right label: how many others come before it; the lower target wins a tie, as in argmax.
    right = log_probabilities[rows, targets][:, None]
    lower = np.arange(log_probabilities.shape[1])[None, :] < targets[:, None]
    rank = ((log_probabilities > right) | ((log_probabilities == right) & lower)).sum(axis=1)
    return Evaluation(
        log_probabilities=log_probabilities,
        loss=float(-right.mean()),
        top1_accuracy=float((rank < 1).mean()),
        top5_accuracy=float((rank < 5).mean()),
    )


def torch_classifier(network: nn.Module, *, device: torch.device, bf16: bool) -> Classifier:
    """A PixelNetwork as a classifier; puts it in evaluation mode."""

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        network.eval()
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits: torch.Tensor = network(torch.from_numpy(pixels).to(device))
        return np.asarray(logits.float().cpu().numpy())

    return classify


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    label_smoothing: float,
    *,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the batch, in float32 whatever the logits' precision.

    An image counts by its class's weight, and the sum is divided by the number of images: not by the batch's
    weights, as torch would, since then a step's loss would depend on how the batch is shared out.
    """
    if class_weights is None:
        return functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    losses = functional.cross_entropy(
        logits.float(), targets, label_smoothing=label_smoothing, reduction="none"
    )
    return (losses * class_weights[targets]).mean()
