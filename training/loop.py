"""The training loop: a pure function of seed, data and hyperparameters, resumable after any step.

Order, augmentation and dropout of a step are drawn from (seed, epoch, step) alone, so a job that was killed
and started again ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artifact.network import PixelNetwork
from training.augment import Draws, augment
from training.data import ImageSet
from training.distributed import Place, World
from training.evaluate import Evaluation, cross_entropy, evaluate, torch_classifier
from training.hyperparameters import Hyperparameters
from training.job import JobError
from training.metrics import metric_line
from training.network import set_training_mode
from training.observer import LossFacts, Observer, StepFacts
from training.progress import progress
from training.schedule import learning_rate

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 64
SMALLEST_SHARE = 2  # of a batch, per rank: batch norm needs more than one image


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a job is: everything but the tensors of network and optimizer."""

    epoch: int = 0
    step: int = 0  # within the epoch
    loss_sum: float = 0.0  # over the epoch's images so far
    correct: int = 0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # an entry per finished epoch
    best: dict[str, float] = field(default_factory=dict)  # the history entry whose weights are kept
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the loop works with; `save` writes a checkpoint, `stopped` says that SIGTERM came."""

    network: PixelNetwork
    hyperparameters: Hyperparameters
    train: ImageSet
    valid: ImageSet | None
    device: torch.device
    bf16: bool
    save: Callable[[dict[str, Any], int], None]
    stopped: Callable[[], bool]
    world: World = field(default_factory=lambda: World(Place()))
    observer: Observer = field(default_factory=Observer)


def train(session: Session, checkpoint: dict[str, Any] | None) -> Progress:
    """Run the remaining epochs and leave the best epoch's weights in the network.

    Best is the highest validation top-1 accuracy, then the lowest validation loss; without a validation
    channel the last epoch. Raises JobError, before the optimizer step, for a loss that is not finite.
    """
    _check_shares(session)
    optimizer = build_optimizer(session.network, session.hyperparameters)
    state = _restore(session.network, optimizer, checkpoint)
    session.observer.watch(session.network.network)
    while state.epoch < session.hyperparameters.epochs and not session.stopped():
        finished = _train_epoch(session, optimizer, state) and _finish_epoch(session, state)
        if finished or session.stopped():
            session.save(_checkpoint(session.network, optimizer, state), _steps_done(session, state))
    if state.best_weights:
        session.network.network.load_state_dict(state.best_weights)
    return state


def build_optimizer(network: nn.Module, hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; weight decay only on parameters of two or more dimensions."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": hyperparameters.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if hyperparameters.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=hyperparameters.learning_rate)
    momentum = hyperparameters.momentum
    return torch.optim.SGD(groups, lr=hyperparameters.learning_rate, momentum=momentum, nesterov=momentum > 0)


def use_bf16(precision: str, device: torch.device) -> bool:
    """`auto`: where the processor multiplies bf16 natively; elsewhere it is emulated and slower than fp32."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _train_epoch(session: Session, optimizer: torch.optim.Optimizer, state: Progress) -> bool:
    """The rest of the epoch, step by step; False when SIGTERM cut it short."""
    hyperparameters = session.hyperparameters
    batches = _epoch_batches(len(session.train), hyperparameters, state.epoch)
    set_training_mode(session.network.network, frozen=hyperparameters.freeze_backbone)
    started, seen_before = time.monotonic(), state.seen
    remaining = range(state.step, len(batches))
    what = f"epoch {state.epoch + 1}/{hyperparameters.epochs}"
    for step in progress(remaining, total=len(remaining), what=what):
        _train_step(session, optimizer, state, batches[step], total_steps=len(batches))
        if session.stopped():
            return False
        if (
            hyperparameters.checkpoint_steps
            and _steps_done(session, state) % hyperparameters.checkpoint_steps == 0
        ):
            session.save(_checkpoint(session.network, optimizer, state), _steps_done(session, state))
    images_per_second = (state.seen - seen_before) / max(1e-9, time.monotonic() - started)
    _say(session, {"images_per_second": images_per_second})
    return True


def _train_step(
    session: Session,
    optimizer: torch.optim.Optimizer,
    state: Progress,
    batch: NDArray[np.int64],
    *,
    total_steps: int,
) -> None:
    hyperparameters, world, observer = session.hyperparameters, session.world, session.observer
    step = _steps_done(session, state)
    observer.step_starts(step)
    share = batch[world.share]
    generator = _generator(hyperparameters.seed, state.epoch, state.step, world.place.rank)
    with observer.phase("data"):
        pixels = torch.from_numpy(session.train.pixels[share])
        targets = torch.from_numpy(session.train.folder.targets[share])
    with observer.phase("transfer"):
        pixels, targets = pixels.to(session.device), targets.to(session.device)
    with observer.phase("augment"):
        images = augment(
            session.network.normalise(pixels),
            hyperparameters.augmentation,
            hyperparameters.image_size,
            Draws(generator, len(batch), world.share),
        )
    rate = _set_learning_rate(optimizer, hyperparameters, state, total_steps)
    with (
        observer.phase("forward"),
        torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.bf16),
    ):
        logits = session.network.network(images.to(memory_format=torch.channels_last))
        loss = cross_entropy(logits, targets, hyperparameters.label_smoothing)
    own_sums = loss.item() * len(share), float((logits.argmax(1) == targets).sum())
    loss_sum, correct = world.sum(np.array(own_sums))
    loss_facts = LossFacts(
        step=step,
        epoch=state.epoch,
        loss=float(loss_sum) / len(batch),
        images=len(batch),
        learning_rate=rate,
    )
    observer.loss_ready(loss_facts)
    _check_finite(loss_sum / len(batch), state, hyperparameters)
    with observer.phase("backward"):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        world.merge_step(session.network.network, weight=len(share) / len(batch))
    observer.gradients_ready(step)
    with observer.phase("optimizer"):
        optimizer.step()
    state.step += 1
    state.seen += len(batch)
    state.loss_sum += float(loss_sum)
    state.correct += int(correct)
    observer.step_ends(
        StepFacts(
            **asdict(loss_facts),
            correct=int(correct),
            inputs=images,
            logits=logits.detach(),
            targets=targets,
        )
    )


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, state: Progress, total_steps: int
) -> float:
    rate = learning_rate(
        state.epoch * total_steps + state.step,
        schedule=hyperparameters.schedule,
        peak=hyperparameters.learning_rate,
        warmup_steps=round(hyperparameters.warmup_epochs * total_steps),
        total_steps=hyperparameters.epochs * total_steps,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _check_finite(loss: float, state: Progress, hyperparameters: Hyperparameters) -> None:
    if not math.isfinite(loss):
        raise JobError(
            f"The training loss is {loss} at epoch {state.epoch + 1}, step {state.step + 1}: lower "
            f"learning_rate={hyperparameters.learning_rate} or lengthen warmup_epochs."
        )


def _finish_epoch(session: Session, state: Progress) -> bool:
    """Evaluate, say the metrics, keep the weights if they are the best so far, and open the next epoch.

    False when SIGTERM came during the evaluation: a resumed job evaluates again.
    """
    entry = {
        "epoch": float(state.epoch + 1),
        "train_loss": state.loss_sum / state.seen,
        "train_top1_accuracy": state.correct / state.seen,
    }
    if session.valid is not None:
        try:
            with session.observer.phase("evaluation"):
                result = _evaluate_unless_stopped(session, session.valid)
        except _Stopped:
            return False
        entry |= {f"validation_{name}": value for name, value in result.metrics().items()}
        session.observer.evaluated(
            step=_steps_done(session, state),
            epoch=state.epoch,
            metrics=result.metrics(),
            log_probabilities=result.log_probabilities,
            targets=session.valid.folder.targets,
        )
    state.history.append(entry)
    if _rank(entry) >= _rank(state.best):
        state.best = entry
        state.best_weights = _copy(session.network.network)
    state.epoch, state.step, state.seen, state.correct, state.loss_sum = state.epoch + 1, 0, 0, 0, 0.0
    metrics = {name: value for name, value in entry.items() if name != "epoch"}
    _say(session, metrics | best_metrics(state.history))
    return True


class _Stopped(Exception):
    """SIGTERM came during an evaluation."""


def _evaluate_unless_stopped(session: Session, images: ImageSet) -> Evaluation:
    classify = torch_classifier(session.network, device=session.device, bf16=session.bf16)
    world = session.world

    def classify_unless_stopped(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if session.stopped():
            raise _Stopped
        logits = np.zeros((len(pixels), len(images.folder.labels)), dtype=np.float32)
        if len(pixels) > world.place.rank:
            logits[world.share] = classify(pixels[world.share])
        return world.sum(logits)  # elsewhere zeros: exactly each rank's own rows, in order

    return evaluate(classify_unless_stopped, images, batch_size=EVALUATION_BATCH * world.size)


def _rank(entry: dict[str, float]) -> tuple[float, float]:
    return entry.get("validation_top1_accuracy", 0.0), -entry.get("validation_loss", math.inf)


def best_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """The best of each validation metric; empty before the first epoch or without a validation channel."""
    if not history or "validation_loss" not in history[0]:
        return {}
    return {
        "best_validation_loss": min(entry["validation_loss"] for entry in history),
        "best_validation_top1_accuracy": max(entry["validation_top1_accuracy"] for entry in history),
    }


def _say(session: Session, metrics: dict[str, float]) -> None:
    """By one rank only: SageMaker reads the logs of all hosts."""
    for name, value in metrics.items() if session.world.is_first else ():
        print(metric_line(name, value), flush=True)


def _epoch_batches(count: int, hyperparameters: Hyperparameters, epoch: int) -> list[NDArray[np.int64]]:
    """A permutation cut into nearly equal batches: no runt whose batch statistics mean nothing."""
    order = np.random.default_rng([hyperparameters.seed, epoch]).permutation(count)
    return np.array_split(order, math.ceil(count / hyperparameters.batch_size))


def _check_shares(session: Session) -> None:
    smallest = min(map(len, _epoch_batches(len(session.train), session.hyperparameters, 0)))
    size = session.world.size
    if size > 1 and smallest < SMALLEST_SHARE * size:
        raise JobError(
            f"{size} processes share batches of {smallest} images (batch_size="
            f"{session.hyperparameters.batch_size}, {len(session.train)} in all), and each needs "
            f"{SMALLEST_SHARE}: raise batch_size, or train on fewer instances."
        )


def _generator(seed: int, epoch: int, step: int, rank: int) -> torch.Generator:
    """For the step's augmentation, alike on all ranks; the global one, for dropout, differs on each."""
    step_seed = int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(step_seed + rank)
    return torch.Generator().manual_seed(step_seed)


def _steps_done(session: Session, state: Progress) -> int:
    per_epoch = math.ceil(len(session.train) / session.hyperparameters.batch_size)
    return state.epoch * per_epoch + state.step


def _checkpoint(network: PixelNetwork, optimizer: torch.optim.Optimizer, state: Progress) -> dict[str, Any]:
    return {
        "progress": {name: getattr(state, name) for name in Progress.__slots__},
        "network": network.network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def _restore(
    network: PixelNetwork, optimizer: torch.optim.Optimizer, checkpoint: dict[str, Any] | None
) -> Progress:
    if checkpoint is None:
        return Progress()
    network.network.load_state_dict(checkpoint["network"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    state = Progress(**checkpoint["progress"])
    logger.info("resumed epoch=%d step=%d", state.epoch, state.step)
    return state


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
