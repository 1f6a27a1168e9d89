"""The story of a training job: images -> network -> artifact and report."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.cores import available_cores
from artifact.network import PixelNetwork
from artifact.preprocess import Preprocess
from training.checkpoint import DiskFull, read_checkpoint, write_checkpoint
from training.data import ImageSet, describe_pixels
from training.debugging.observers import FOLDER, build_observer
from training.debugging.report import reporting
from training.distributed import World
from training.export import Exported, Trained, export, read_golden_body
from training.features import Features, collect_features
from training.hyperparameters import Hyperparameters
from training.job import Job
from training.loop import Progress, Session, train, use_bf16
from training.observer import Observer
from training.prepare import decode_splits, prepare_network, read_folders, see_the_doctor
from training.quantize import Samples, choose_calibration
from training.rendezvous import JOIN_SECONDS, REJOIN_SECONDS, join_world
from training.results import say_last_metrics, write_output
from training.shards import EVERYWHERE, Shards, join_shards
from training.stop import Stopped, StopSignal
from training.validation import EvaluationStopped, validate

# Hyperparameters that change nothing about the weights: a checkpoint made with others is resumed from.
WITHOUT_EFFECT = frozenset(
    {"checkpoint_steps", "doctor", "quantize", "restarts", "feature_cache", "feature_cache_gb", "smdebug"}
)

logger = logging.getLogger(__name__)

FULL_BYTES = 2**20  # free on a disk on which writing just failed


def run(
    job: Job,
    hyperparameters: Hyperparameters,
    *,
    processes_per_host: int = 1,
    local_rank: int = 0,
    attempt: int = 0,
) -> None:
    """One training job, from its channels to /opt/ml/model, or one process's part in it."""
    stop = StopSignal.install()
    with join_world(
        job,
        processes_per_host=processes_per_host,
        local_rank=local_rank,
        join_seconds=REJOIN_SECONDS if attempt else JOIN_SECONDS,
    ) as world:
        _train_and_export(job, hyperparameters, stop, world)


def _train_and_export(job: Job, hyperparameters: Hyperparameters, stop: StopSignal, world: World) -> None:
    folders = read_folders(job, world)
    labels = folders["train"].labels
    # before decoding: a wrong name fails at once
    network = prepare_network(job, hyperparameters, len(labels))
    if world.is_first:
        see_the_doctor(hyperparameters.doctor, folders, job.output_dir)
    preprocess = Preprocess(resize=hyperparameters.resize_side, crop=hyperparameters.image_size)
    images = decode_splits(folders, preprocess, hyperparameters)
    train_images, shards = images["train"], EVERYWHERE
    if job.sharded:
        train_images, shards = join_shards(train_images, world)
    identity = _identity(hyperparameters, train_images)
    world.check_same(identity)
    pixel_network = PixelNetwork(network, preprocess)
    everything = images | {"train": train_images}
    session = _open_session(job, hyperparameters, pixel_network, everything, shards, stop, identity, world)
    session = replace(session, features=_collect_features(session))
    stop.defer()
    telling = reporting(job.output_dir / FOLDER, name=hyperparameters.architecture)
    with telling if world.is_first else nullcontext(), closing(session.observer):
        progress = train(session, _resume(job, identity, world))
    stopped = session.stopped()
    answers = None if stopped else _answer_valid(session, progress)
    logger.info("rank=%d weights=%s", world.place.rank, _checksum(session.network.network))
    if not world.is_first:
        return
    trained = Trained(
        network=session.network,
        architecture=hyperparameters.architecture,
        labels=labels,
        preprocess=preprocess,
        golden_body=_first_picture(images),
        hyperparameters=asdict(hyperparameters),
        metrics=_validation_metrics(progress),
        data={split: _describe_split(image_set) for split, image_set in everything.items()},
        valid_answers=answers,
    )
    with _whole_or_nothing(job.model_dir):
        exported, test = _export_in_time(trained, job.model_dir, images, hyperparameters, stop, stopped)
    write_output(job.output_dir, trained, progress, test, exported)
    say_last_metrics(progress, exported.test)
    logger.info("artifact=%s", job.model_dir)


def _answer_valid(session: Session, progress: Progress) -> NDArray[np.float64] | None:
    """Log-probabilities of the final weights, by all ranks together; from kept features where there are."""
    if session.valid is None:
        return None
    micro_batch = progress.micro_batch or session.hyperparameters.micro_batch
    try:
        return validate(session, session.network, micro_batch=micro_batch).log_probabilities
    except EvaluationStopped:
        return None


@contextmanager
def _whole_or_nothing(directory: Path) -> Iterator[None]:
    """Empties it where writing fails: what is not whole must not be taken for a model."""
    try:
        yield
    except Exception as error:
        is_full = shutil.disk_usage(directory.parent).free < FULL_BYTES
        _empty(directory)
        if is_full:  # some libraries say "iostream error" and no more
            raise OSError(errno.ENOSPC, f"No space left on device ({error})", str(directory)) from error
        raise


def _export_in_time(
    trained: Trained,
    directory: Path,
    images: dict[str, ImageSet],
    hyperparameters: Hyperparameters,
    stop: StopSignal,
    stopped: bool,
) -> tuple[Exported, ImageSet | None]:
    """What was exported, and the split it was measured on; a stopped job has 120 s and measures nothing."""
    test = images.get("test")
    try:
        with stop.interrupting(at_once=stopped):
            samples = _choose_samples(hyperparameters, images)
            exported = export(trained, directory, test=test, valid=images.get("valid"), samples=samples)
            logger.info("stopped=false")
            return exported, test
    except Stopped:
        _empty(directory)
        # fp32 will do, and a transform job can score the test split later
        exported = export(trained, directory, samples="the job was stopped")
        logger.info("stopped=true")
        return exported, None


def _empty(directory: Path) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _identity(hyperparameters: Hyperparameters, images: ImageSet) -> dict[str, str]:
    """What must be the same for a checkpoint to be resumed from."""
    settings = {
        name: value
        for name, value in hyperparameters.to_strings().items()
        if name not in WITHOUT_EFFECT and not name.startswith(("debug", "profile_"))
    }
    return settings | {"training data": images.fingerprint}


def _resume(job: Job, identity: dict[str, str], world: World) -> dict[str, Any] | None:
    """The first rank's checkpoint: the folder is each host's own."""
    return world.broadcast(read_checkpoint(job.checkpoint_dir, identity=identity) if world.is_first else None)


def _checksum(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open_session(
    job: Job,
    hyperparameters: Hyperparameters,
    network: PixelNetwork,
    images: dict[str, ImageSet],
    shards: Shards,
    stop: StopSignal,
    identity: dict[str, str],
    world: World,
) -> Session:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(max(1, available_cores() // world.place.processes_on_machine))

    steps = math.ceil(len(images["train"]) / hyperparameters.batch_size)
    session = Session(
        network=network.to(device).to(memory_format=torch.channels_last),
        hyperparameters=hyperparameters,
        train=images["train"],
        valid=images.get("valid"),
        device=device,
        bf16=use_bf16(hyperparameters.precision, device),
        save=lambda state, step: _save_checkpoint(job, session, state | {"identity": identity}, step),
        stopped=lambda: world.any(stop.is_set()),
        world=world,
        shards=shards,
    )
    world.share_network(session.network, device)
    if world.is_first:
        session = replace(session, observer=_open_observer(job, session, steps_per_epoch=steps))
    logger.info(
        "%s on %s in %s: %d classes, %d images / batch_size %d = %d steps x %d epochs = %d steps",
        hyperparameters.architecture,
        device.type,
        "bf16" if session.bf16 else "fp32",
        len(session.train.folder.labels),
        len(session.train),
        hyperparameters.batch_size,
        steps,
        hyperparameters.epochs,
        steps * hyperparameters.epochs,
    )
    return session


def _save_checkpoint(job: Job, session: Session, state: dict[str, Any], step: int) -> None:
    """By one rank; a full disk keeps the checkpoint before."""
    if not session.world.is_first:
        return
    try:
        with session.observer.phase("checkpoint"):
            path = write_checkpoint(job.checkpoint_dir, state, step=step)
    except DiskFull as error:
        logger.error("the checkpoint of step %d has no room (%s): the one before stays", step, error)
    else:
        logger.info("checkpoint=%s", path)


def _collect_features(session: Session) -> Features | None:
    return collect_features(
        session.network,
        session.hyperparameters,
        train=session.train,
        valid=session.valid,
        device=session.device,
        bf16=session.bf16,
        world=session.world,
        shards=session.shards,
    )


def _open_observer(job: Job, session: Session, *, steps_per_epoch: int) -> Observer:
    """The first rank's: it sees its own share of each batch, and all that its host does."""
    hyperparameters, labels = session.hyperparameters, session.train.folder.labels
    return build_observer(
        job,
        hyperparameters,
        labels=labels,
        facts={
            "architecture": hyperparameters.architecture,
            "device": session.device.type,
            "precision": "bf16" if session.bf16 else "fp32",
            "batch_size": hyperparameters.batch_size,
            "epochs": hyperparameters.epochs,
            "steps_per_epoch": steps_per_epoch,
            "num_classes": len(labels),
            "train_images": len(session.train),
            "world_size": session.world.size,
            "cores": available_cores(),
            "gpus": torch.cuda.device_count(),
            "image_size": hyperparameters.image_size,
            **describe_pixels(session.train),
        },
        total_steps=steps_per_epoch * hyperparameters.epochs,
        device=session.device,
    )


def _first_picture(images: dict[str, ImageSet]) -> bytes:
    folder = images.get("valid", images["train"]).folder
    return read_golden_body(folder.root / folder.paths[0])


def _choose_samples(hyperparameters: Hyperparameters, images: dict[str, ImageSet]) -> Samples | str:
    """What decides about other precisions, or why fp32 must do."""
    if hyperparameters.quantize == "off":
        return "quantize=off"
    if "valid" not in images:
        return "there is no valid split to measure it on"
    calibration = choose_calibration(
        images["train"], crop=hyperparameters.image_size, seed=hyperparameters.seed
    )
    return Samples(calibration=calibration, valid=images["valid"])


def _validation_metrics(progress: Progress) -> dict[str, dict[str, float]]:
    prefix = "validation_"
    valid = {name.removeprefix(prefix): v for name, v in progress.best.items() if name.startswith(prefix)}
    return {"valid": valid} if valid else {}


def _describe_split(images: ImageSet) -> dict[str, Any]:
    return {
        "images": len(images),
        "unreadable": len(images.unreadable),
        "fingerprint": images.fingerprint,
    }
