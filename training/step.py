"""One optimizer step: a batch through the network, in parts where memory is short, then the weights."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from training.augment import Draws, augment
from training.evaluate import cross_entropy
from training.hyperparameters import Hyperparameters
from training.job import JobError
from training.memory import RunningStatistics, is_out_of_memory
from training.mixing import Mix, draw_mix, partners_of
from training.observer import LossFacts, StepFacts
from training.schedule import set_learning_rate
from training.session import Learner, Progress, Session

logger = logging.getLogger(__name__)

SMALLEST_MICRO_BATCH = 2  # batch norm needs more than one image


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """Of this rank's share of a batch; the tensors are those of the last part."""

    loss_sum: float
    correct: float
    inputs: Tensor
    logits: Tensor
    targets: Tensor


def take_step(session: Session, learner: Learner, batch: NDArray[np.int64]) -> None:
    """`batch` is the whole one, of all ranks. Raises JobError, before weights change, if the loss is NaN."""
    observer, world, progress = session.observer, session.world, learner.progress
    step = progress.epoch * session.steps_per_epoch + progress.step
    observer.step_starts(step)
    rate = set_learning_rate(learner.optimizer, session.hyperparameters, step, session.steps_per_epoch)
    learnt = _learn(session, learner, batch)
    loss_sum, correct = world.sum(np.array([learnt.loss_sum, learnt.correct]))
    loss_facts = LossFacts(
        step=step,
        epoch=progress.epoch,
        loss=float(loss_sum) / len(batch),
        images=len(batch),
        learning_rate=rate,
    )
    observer.loss_ready(loss_facts)
    _check_finite(loss_sum / len(batch), progress, session.hyperparameters)
    with observer.phase("backward"):
        world.merge_step(session.network.network, weight=len(session.own(batch)) / len(batch))
    observer.gradients_ready(step)
    with observer.phase("optimizer"):
        _change_weights(session, learner)
    progress.step += 1
    progress.seen += len(batch)
    progress.loss_sum += float(loss_sum)
    progress.correct += int(correct)
    observer.step_ends(
        StepFacts(
            **asdict(loss_facts),
            correct=int(correct),
            inputs=learnt.inputs,
            logits=learnt.logits,
            targets=learnt.targets,
        )
    )


def _learn(session: Session, learner: Learner, batch: NDArray[np.int64]) -> Learnt:
    """Gradients of the share's mean loss; out of memory, again with half as many images at once."""
    progress = learner.progress
    share = len(session.own(batch))
    limit = progress.micro_batch or session.hyperparameters.micro_batch or share
    before = RunningStatistics(session.network.network)
    while True:
        num_parts = math.ceil(share / min(limit, share))
        try:
            return _accumulate(session, learner, batch, num_parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            limit = _halve(math.ceil(share / num_parts), session, error)
        # The failed try's tensors hang on the exception, which is gone only here.
        before.restore()
        learner.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if session.device.type == "cuda":
            torch.cuda.empty_cache()
        progress.micro_batch = limit


def _halve(images: int, session: Session, error: BaseException) -> int:
    """Raises JobError where half of `images` are too few, or other ranks would wait for this one."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    several_gpus = session.world.size > 1 and session.device.type == "cuda"  # their batch norms are joined
    if several_gpus or images < 2 * SMALLEST_MICRO_BATCH:
        hint = "set micro_batch" if several_gpus else "lower image_size or take a smaller architecture"
        raise JobError(f"Memory does not suffice for {images} images at once ({reason}): {hint}.") from error
    logger.warning(
        "out of memory with %d images at once (%s): going on with %d; batch_size stays, but batch norm "
        "sees fewer images (micro_batch=%d says so from the start)",
        images,
        reason,
        images // 2,
        images // 2,
    )
    return images // 2


def _accumulate(session: Session, learner: Learner, batch: NDArray[np.int64], num_parts: int) -> Learnt:
    """The share in `num_parts` nearly equal parts, their gradients summed."""
    observer, progress = session.observer, learner.progress
    mix = draw_mix(session.hyperparameters, progress.epoch, progress.step)
    _seed_dropout(session, progress)
    learner.optimizer.zero_grad(set_to_none=True)
    own, partners = _deal(session, batch)
    sums = torch.zeros(2, dtype=torch.float64, device=session.device)
    for part in np.array_split(np.arange(len(own)), num_parts):
        inputs = _prepare(session, own[part], partners[part] if mix else None, mix, progress.epoch)
        targets = _targets(session, [own[part], partners[part]])
        with (
            observer.phase("forward"),
            torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.bf16),
        ):
            logits = _forward(session, inputs)
            loss = _loss(session, learner, logits, targets, mix)
        with observer.phase("backward"):
            (loss * (len(part) / len(own))).backward()  # type: ignore[no-untyped-call]
        hits = (logits.detach().argmax(1) == targets[0]).sum()
        sums += torch.stack([loss.detach().double() * len(part), hits.double()])
    loss_sum, correct = sums.tolist()  # the step's one wait for the device
    return Learnt(
        loss_sum=loss_sum, correct=correct, inputs=inputs, logits=logits.detach(), targets=targets[0]
    )


def _deal(session: Session, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """This rank's images and their partners: of the whole batch, or where they are dealt out of its own."""
    places = session.own(batch)
    own = batch[places]
    return own, partners_of(own) if session.shards.sizes else partners_of(batch)[places]


def _prepare(
    session: Session, own: NDArray[np.int64], partners: NDArray[np.int64] | None, mix: Mix | None, epoch: int
) -> Tensor:
    """What goes into the network (N, 3, H, W), or the features that go into the head (N, width)."""
    observer = session.observer
    if session.features is not None:
        with observer.phase("data"):
            features = torch.from_numpy(session.features.of_epoch(epoch)[own])
        with observer.phase("transfer"):
            return features.to(session.device)
    if mix is None or partners is None:
        return _read_pictures(session, own, epoch)
    rows, places = np.unique(np.concatenate([own, partners]), return_inverse=True)
    images = _read_pictures(session, rows, epoch)
    with observer.phase("augment"):
        indices = torch.from_numpy(places).to(session.device)
        return mix.apply(images[indices[: len(own)]], images[indices[len(own) :]])


def _read_pictures(session: Session, rows: NDArray[np.int64], epoch: int) -> Tensor:
    """Augmented and normalised, (N, 3, H, W) float32 in channels_last."""
    observer, hyperparameters = session.observer, session.hyperparameters
    with observer.phase("data"):
        draws = Draws(seed=hyperparameters.seed, epoch=epoch, images=rows)
        pixels = torch.from_numpy(
            augment(
                session.train.pixels,
                hyperparameters.augmentation,
                hyperparameters.image_size,
                draws,
                first=session.shards.first(session.world.place),
            )
        )
    with observer.phase("transfer"):
        pixels = pixels.to(session.device)
    with observer.phase("augment"):
        mean, std = session.network.mean, session.network.std
        # PixelNetwork.normalise in two passes over the batch instead of five.
        return pixels.permute(0, 3, 1, 2).float().mul_(1.0 / (255.0 * std)).sub_(mean / std)


def _targets(session: Session, rows: Sequence[NDArray[np.int64]]) -> list[Tensor]:
    targets = session.train.folder.targets
    return [torch.from_numpy(targets[some]).to(session.device) for some in rows]


def _forward(session: Session, inputs: Tensor) -> Tensor:
    if session.features is not None:
        logits: Tensor = session.features.head(inputs)
        return logits
    logits = session.network.network(inputs.contiguous(memory_format=torch.channels_last))
    return logits


def _loss(
    session: Session, learner: Learner, logits: Tensor, targets: Sequence[Tensor], mix: Mix | None
) -> Tensor:
    """The part's mean; of mixed pictures the mean over both labels by their shares."""
    smoothing, weights = session.hyperparameters.label_smoothing, learner.class_weights
    loss = cross_entropy(logits, targets[0], smoothing, class_weights=weights)
    if mix is None:
        return loss
    partners = cross_entropy(logits, targets[1], smoothing, class_weights=weights)
    return mix.share * loss + (1.0 - mix.share) * partners


def _change_weights(session: Session, learner: Learner) -> None:
    if session.hyperparameters.clip_norm:
        clip_grad_norm_(session.network.parameters(), session.hyperparameters.clip_norm)
    learner.optimizer.step()
    if learner.average is not None:
        learner.average.update(session.network)


def _check_finite(loss: float, progress: Progress, hyperparameters: Hyperparameters) -> None:
    if not math.isfinite(loss):
        raise JobError(
            f"The training loss is {loss} at epoch {progress.epoch + 1}, step {progress.step + 1}: lower "
            f"learning_rate={hyperparameters.learning_rate} or lengthen warmup_epochs."
        )


def _seed_dropout(session: Session, progress: Progress) -> None:
    """torch's global generator, from which dropout draws: by the step, different on each rank."""
    entropy = [session.hyperparameters.seed, progress.epoch, progress.step]
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed + session.world.place.rank)
