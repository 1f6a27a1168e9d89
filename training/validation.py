"""The validation split after an epoch, shared out among the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.network import PixelNetwork, head_path
from training.evaluate import Evaluation, judge, torch_classifier
from training.job import JobError
from training.session import Session

EVALUATION_BATCH = 64

FeatureClassifier = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (N, width) -> (N, num_classes)


class EvaluationStopped(Exception):
    """SIGTERM came during an evaluation."""


def validate(session: Session, network: PixelNetwork, *, micro_batch: int) -> Evaluation:
    """`network` on every image once, in order, the same on each rank; `micro_batch` at once, 0 = any.

    Raises EvaluationStopped, and JobError where the answers are not finite.
    """
    assert session.valid is not None
    world, num_classes = session.world, len(session.valid.folder.labels)
    inputs: NDArray[Any] = session.valid.pixels
    classify: Callable[[NDArray[Any]], NDArray[np.float32]]
    if session.features is not None and session.features.valid is not None:
        inputs, classify = session.features.valid, _head_classifier(session, network)
    else:
        classify = torch_classifier(network, device=session.device, bf16=session.bf16)
    answers = []
    for start in range(0, len(inputs), EVALUATION_BATCH * world.size):
        if session.stopped():
            raise EvaluationStopped
        batch = inputs[start : start + EVALUATION_BATCH * world.size]
        logits = np.zeros((len(batch), num_classes), dtype=np.float32)
        if len(batch) > world.place.rank:
            own = batch[world.share]
            parts = np.array_split(own, math.ceil(len(own) / (micro_batch or len(own))))
            logits[world.share] = np.concatenate([classify(part) for part in parts])
        answers.append(world.sum(logits))  # elsewhere zeros: exactly each rank's own rows, in order
    all_logits = np.concatenate(answers)
    if not np.isfinite(all_logits).all():
        raise JobError(
            "The network's answers to the validation images are no longer finite: lower "
            f"learning_rate={session.hyperparameters.learning_rate} or lengthen warmup_epochs."
        )
    return judge(all_logits, session.valid.folder.targets)


def _head_classifier(session: Session, network: PixelNetwork) -> FeatureClassifier:
    head = network.network.get_submodule(head_path(network.network))

    def classify(features: NDArray[np.float32]) -> NDArray[np.float32]:
        head.eval()
        inputs = torch.from_numpy(np.ascontiguousarray(features)).to(session.device)
        with (
            torch.inference_mode(),
            torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.bf16),
        ):
            return np.asarray(head(inputs).float().cpu().numpy())

    return classify
