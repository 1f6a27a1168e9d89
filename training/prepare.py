"""What a training job does before it trains: folders, network, the data doctor, pixels."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import torch

from artifact.network import ArchitectureError, build_network
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet, decode_images, read_image_folder
from training.distributed import World
from training.doctor.cache import Cache, default_cache_path
from training.doctor.diagnosis import examine_for_job
from training.doctor.findings import sentence, verdict
from training.hyperparameters import Hyperparameters
from training.job import Job, JobError, find_splits
from training.network import download_pretrained, freeze_backbone, load_backbone, read_state_dict
from training.shards import gather_labels

logger = logging.getLogger(__name__)


def read_folders(job: Job, world: World) -> dict[str, ImageFolder]:
    splits = find_splits(job.channels)
    labels = gather_labels(splits["train"], world) if job.sharded else None
    train_folder = read_image_folder(splits["train"], labels)
    others = {
        split: read_image_folder(splits[split], train_folder.labels) for split in splits if split != "train"
    }
    if "valid" not in others:
        logger.warning(
            "no validation channel: the last epoch's weights are exported, whatever they are worth"
        )
    return {"train": train_folder} | others


def prepare_network(job: Job, hyperparameters: Hyperparameters, num_classes: int) -> torch.nn.Module:
    """Seeded random weights, then those of the `weights` channel or of torchvision."""
    torch.manual_seed(hyperparameters.seed)
    try:
        network = build_network(
            hyperparameters.architecture,
            num_classes,
            head_hidden=hyperparameters.head_hidden,
            dropout=hyperparameters.dropout,
        )
    except ArchitectureError as error:
        raise JobError(str(error)) from error
    if "weights" in job.channels:
        load_backbone(network, read_state_dict(job.channels["weights"]), source=str(job.channels["weights"]))
    elif hyperparameters.pretrained:
        load_backbone(network, download_pretrained(hyperparameters.architecture), source="torchvision")
    elif hyperparameters.freeze_backbone:
        logger.warning("freeze_backbone=true on random weights: give --weights PATH, or little is learnt")
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    return network


def see_the_doctor(mode: str, folders: dict[str, ImageFolder], output_dir: Path) -> None:
    """Look at the data before time is spent on it: warn, or with `strict` refuse what is worth stopping for.

    Raises JobError naming the files.
    """
    if mode == "off":
        return
    with Cache(default_cache_path()) as cache:
        findings = examine_for_job({split: folder.root for split, folder in folders.items()}, cache=cache)
    output_dir.mkdir(parents=True, exist_ok=True)
    content = {"verdict": verdict(findings), "findings": [asdict(finding) for finding in findings]}
    (output_dir / "doctor.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for finding in findings:
        if finding.severity != "note":
            logger.warning("doctor: %s", sentence([finding]))
    if mode == "strict" and verdict(findings) == "stop":
        raise JobError(f"The data is not worth training on (doctor=strict): {sentence(findings)}")


def decode_splits(
    folders: dict[str, ImageFolder], preprocess: Preprocess, hyperparameters: Hyperparameters
) -> dict[str, ImageSet]:
    uncropped = replace(preprocess, crop=preprocess.resize)  # for training: augmentation does the cropping
    return {
        split: decode_images(
            folder,
            uncropped if split == "train" else preprocess,
            max_unreadable=hyperparameters.max_unreadable,
        )
        for split, folder in folders.items()
    }
