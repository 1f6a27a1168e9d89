"""The training loop: a pure function of seed, data and hyperparameters, resumable after any step.

Order, augmentation, mixing and dropout of a step are drawn from (seed, epoch, step) alone, so a job that was
killed and started again ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.averaging import Average
from training.hyperparameters import Hyperparameters
from training.job import JobError
from training.metrics import metric_line
from training.network import set_training_mode, unfreeze_blocks
from training.progress import progress as show_progress
from training.schedule import build_optimizer
from training.session import Learner, Progress, Session, weigh_classes
from training.step import take_step
from training.validation import EvaluationStopped, validate

__all__ = ["Progress", "Session", "best_metrics", "build_optimizer", "train", "use_bf16"]

logger = logging.getLogger(__name__)

SMALLEST_SHARE = 2  # of a batch, per rank: batch norm needs more than one image


def train(session: Session, checkpoint: dict[str, Any] | None) -> Progress:
    """Run the remaining epochs and leave the best epoch's weights in the network.

    Best is the highest validation top-1 accuracy, then the lowest validation loss; without a validation
    channel the last epoch. Raises JobError, before the optimizer step, for a loss that is not finite.
    """
    _check_session(session)
    learner = _open_learner(session, checkpoint)
    progress = learner.progress
    session.observer.watch(session.network.network)
    while not (_is_over(progress, session.hyperparameters) or session.stopped()):
        finished = _train_epoch(session, learner) and _finish_epoch(session, learner)
        if finished or session.stopped():
            session.save(_checkpoint(session, learner), _steps_done(session, progress))
    if progress.best_weights:
        session.network.network.load_state_dict(progress.best_weights)
    return progress


def use_bf16(precision: str, device: torch.device) -> bool:
    """`auto`: where the processor multiplies bf16 natively; elsewhere it is emulated and slower than fp32."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def best_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """The best of each validation metric; empty before the first epoch or without a validation channel."""
    if not history or "validation_loss" not in history[0]:
        return {}
    return {
        "best_validation_loss": min(entry["validation_loss"] for entry in history),
        "best_validation_top1_accuracy": max(entry["validation_top1_accuracy"] for entry in history),
    }


def _is_over(progress: Progress, hyperparameters: Hyperparameters) -> bool:
    """All epochs are done, or none of the last `patience` was better than the best before them."""
    waited = progress.epoch - progress.best.get("epoch", progress.epoch)
    if hyperparameters.patience and waited >= hyperparameters.patience:
        logger.info("epoch %d: no better result for %d epochs, patience ends", progress.epoch, int(waited))
        return True
    return progress.epoch >= hyperparameters.epochs


def _train_epoch(session: Session, learner: Learner) -> bool:
    """The rest of the epoch, step by step; False when SIGTERM cut it short."""
    hyperparameters, progress = session.hyperparameters, learner.progress
    batches = _epoch_batches(session, progress.epoch)
    set_training_mode(session.network.network, frozen=hyperparameters.freeze_backbone)
    if hyperparameters.unfreeze_epochs:
        unfreeze_blocks(
            session.network.network, epoch=progress.epoch, over_epochs=hyperparameters.unfreeze_epochs
        )
    started, seen_before = time.monotonic(), progress.seen
    remaining = range(progress.step, len(batches))
    what = f"epoch {progress.epoch + 1}/{hyperparameters.epochs}"
    for step in show_progress(remaining, total=len(remaining), what=what):
        take_step(session, learner, batches[step])
        if session.stopped():
            return False
        done, interval = _steps_done(session, progress), hyperparameters.checkpoint_steps
        if interval and done % interval == 0:
            session.save(_checkpoint(session, learner), done)
    images_per_second = (progress.seen - seen_before) / max(1e-9, time.monotonic() - started)
    _say(session, {"images_per_second": images_per_second})
    return True


def _finish_epoch(session: Session, learner: Learner) -> bool:
    """Evaluate, say the metrics, keep the weights if they are the best so far, and open the next epoch.

    False when SIGTERM came during the evaluation: a resumed job evaluates again.
    """
    progress = learner.progress
    entry = {
        "epoch": float(progress.epoch + 1),
        "train_loss": progress.loss_sum / progress.seen,
        "train_top1_accuracy": progress.correct / progress.seen,
    }
    if session.valid is not None:
        try:
            with session.observer.phase("evaluation"):
                result = validate(
                    session,
                    learner.judged(session),
                    micro_batch=progress.micro_batch or session.hyperparameters.micro_batch,
                )
        except EvaluationStopped:
            return False
        entry |= {f"validation_{name}": value for name, value in result.metrics().items()}
        session.observer.evaluated(
            step=_steps_done(session, progress),
            epoch=progress.epoch,
            metrics=result.metrics(),
            log_probabilities=result.log_probabilities,
            targets=session.valid.folder.targets,
        )
    progress.history.append(entry)
    if _rank(entry) >= _rank(progress.best):
        progress.best = entry
        progress.best_weights = _copy(learner.judged(session).network)
    progress.epoch += 1
    progress.step, progress.seen, progress.correct, progress.loss_sum = 0, 0, 0, 0.0
    metrics = {name: value for name, value in entry.items() if name != "epoch"}
    _say(session, metrics | best_metrics(progress.history))
    return True


def _rank(entry: dict[str, float]) -> tuple[float, float]:
    return entry.get("validation_top1_accuracy", 0.0), -entry.get("validation_loss", math.inf)


def _say(session: Session, metrics: dict[str, float]) -> None:
    """By one rank only: SageMaker reads the logs of all hosts."""
    for name, value in metrics.items() if session.world.is_first else ():
        print(metric_line(name, value), flush=True)


def _epoch_batches(session: Session, epoch: int) -> list[NDArray[np.int64]]:
    """A permutation cut into nearly equal batches: no runt whose batch statistics mean nothing."""
    random = np.random.default_rng([session.hyperparameters.seed, epoch])
    return np.array_split(session.shards.order(len(session.train), random), session.steps_per_epoch)


def _check_session(session: Session) -> None:
    hyperparameters = session.hyperparameters
    place, shards = session.world.place, session.shards
    smallest = min(_epoch_batches(session, 0), key=lambda batch: shards.smallest_share(batch, place))
    if place.size > 1 and shards.smallest_share(smallest, place) < SMALLEST_SHARE:
        dealt = f", dealt to the hosts as {', '.join(map(str, shards.sizes))}" if shards.sizes else ""
        raise JobError(
            f"{place.size} processes share batches of {len(smallest)} images (batch_size="
            f"{hyperparameters.batch_size}, {len(session.train)} in all{dealt}), and each needs "
            f"{SMALLEST_SHARE}: raise batch_size, or train on fewer instances."
        )
    if hyperparameters.patience and session.valid is None:
        raise JobError(
            f"patience={hyperparameters.patience} needs a validation channel to judge by: give one named "
            "valid, or set patience=0."
        )


def _steps_done(session: Session, progress: Progress) -> int:
    return progress.epoch * session.steps_per_epoch + progress.step


def _open_learner(session: Session, checkpoint: dict[str, Any] | None) -> Learner:
    """New, or as the checkpoint left it; the network too."""
    decay = session.hyperparameters.ema_decay
    learner = Learner(
        progress=Progress(**checkpoint["progress"]) if checkpoint else Progress(),
        optimizer=build_optimizer(session.network, session.hyperparameters),
        average=Average(session.network, decay) if decay else None,
        class_weights=weigh_classes(session),
    )
    if checkpoint:
        session.network.network.load_state_dict(checkpoint["network"])
        learner.optimizer.load_state_dict(checkpoint["optimizer"])
        if learner.average is not None:
            learner.average.load_state_dict(checkpoint["average"])
        logger.info("resumed epoch=%d step=%d", learner.progress.epoch, learner.progress.step)
    return learner


def _checkpoint(session: Session, learner: Learner) -> dict[str, Any]:
    return {
        "progress": {name: getattr(learner.progress, name) for name in Progress.__slots__},
        "network": session.network.network.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "average": learner.average.state_dict() if learner.average else None,
    }


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
