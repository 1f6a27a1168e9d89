"""`python -m training` runs the job SageMaker laid out under /opt/ml (or --prefix) and exports the artifact.

`python -m training import` makes an artifact of an existing state dict.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from artifact.bundle import pack_artifact
from artifact.cores import available_cores
from artifact.labels import read_labels
from artifact.preprocess import Preprocess
from scoring.items import Item
from scoring.report import write_report
from scoring.scores import score, write_scores
from training.checkpoint import read_checkpoint, write_checkpoint
from training.data import ImageFolder, ImageSet, decode_images, read_image_folder
from training.evaluate import Evaluation
from training.export import Trained, draw_golden_body, export, read_golden_body
from training.hyperparameters import NAMES, HyperparameterError, Hyperparameters, parse_hyperparameters
from training.job import (
    DEFAULT_PREFIX,
    FAILURE_CHARACTERS,
    PREFIX_VARIABLE,
    Job,
    JobError,
    find_splits,
    read_job,
)
from training.loop import Progress, Session, best_metrics, train, use_bf16
from training.metrics import metric_line
from training.network import (
    PixelNetwork,
    build_network,
    download_pretrained,
    freeze_backbone,
    load_backbone,
    load_weights,
    read_state_dict,
)
from training.stop import StopSignal

logger = logging.getLogger("training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 also for a job that SIGTERM stopped in good order; 1 with output/failure written."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    if options.verb == "import":
        return _import(options)
    failure_path = Path(options.prefix) / "output" / "failure"
    try:
        run(read_job(options.prefix))
    except (JobError, HyperparameterError) as error:
        _write_failure(failure_path, str(error))
        logger.error("%s", error)
        return 1
    except Exception as error:
        _write_failure(failure_path, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()[-700:]}")
        logger.exception("the training job failed")
        return 1
    return 0


def run(job: Job) -> None:
    """One training job, from its channels to /opt/ml/model."""
    stop = StopSignal.install()
    hyperparameters = parse_hyperparameters(job.raw_hyperparameters)
    folders = _read_folders(job)
    labels = folders["train"].labels
    network = _build_network(job, hyperparameters, len(labels))  # before decoding: a wrong name fails at once
    preprocess = Preprocess(resize=hyperparameters.resize_side, crop=hyperparameters.image_size)
    images = _decode(folders, preprocess, hyperparameters)
    identity = _identity(hyperparameters, images["train"])
    session = _open_session(job, hyperparameters, PixelNetwork(network, preprocess), images, stop, identity)
    progress = train(session, read_checkpoint(job.checkpoint_dir, identity=identity))
    # A stopped job has 120 s: the test split can be scored later, by a transform job.
    test = None if stop.is_set() else images.get("test")
    trained = Trained(
        network=session.network,
        architecture=hyperparameters.architecture,
        labels=labels,
        preprocess=preprocess,
        golden_body=_first_picture(images),
        hyperparameters=asdict(hyperparameters),
        metrics=_validation_metrics(progress),
        data={split: _describe_split(image_set) for split, image_set in images.items()},
    )
    evaluation = export(trained, job.model_dir, test=test)
    _write_output(job.output_dir, trained, progress, test, evaluation)
    _say_last_metrics(progress, evaluation)
    logger.info("artifact=%s stopped=%s", job.model_dir, str(stop.is_set()).lower())


def _read_folders(job: Job) -> dict[str, ImageFolder]:
    splits = find_splits(job.channels)
    train_folder = read_image_folder(splits["train"])
    others = {
        split: read_image_folder(splits[split], train_folder.labels) for split in splits if split != "train"
    }
    if "valid" not in others:
        logger.warning(
            "no validation channel: the last epoch's weights are exported, whatever they are worth"
        )
    return {"train": train_folder} | others


def _build_network(job: Job, hyperparameters: Hyperparameters, num_classes: int) -> torch.nn.Module:
    """Seeded random weights, then those of the `weights` channel or of torchvision."""
    torch.manual_seed(hyperparameters.seed)
    network = build_network(
        hyperparameters.architecture,
        num_classes,
        head_hidden=hyperparameters.head_hidden,
        dropout=hyperparameters.dropout,
    )
    if "weights" in job.channels:
        load_backbone(network, read_state_dict(job.channels["weights"]), source=str(job.channels["weights"]))
    elif hyperparameters.pretrained:
        load_backbone(network, download_pretrained(hyperparameters.architecture), source="torchvision")
    elif hyperparameters.freeze_backbone:
        logger.warning("freeze_backbone=true on random weights: give --weights PATH, or little is learnt")
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    return network


def _decode(
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


def _identity(hyperparameters: Hyperparameters, images: ImageSet) -> dict[str, str]:
    """What must be the same for a checkpoint to be resumed from."""
    settings = hyperparameters.to_strings()
    del settings["checkpoint_steps"]
    return settings | {"training data": images.fingerprint}


def _open_session(
    job: Job,
    hyperparameters: Hyperparameters,
    network: PixelNetwork,
    images: dict[str, ImageSet],
    stop: StopSignal,
    identity: dict[str, str],
) -> Session:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(available_cores())

    def save(state: dict[str, Any], step: int) -> None:
        path = write_checkpoint(job.checkpoint_dir, state | {"identity": identity}, step=step)
        logger.info("checkpoint=%s", path)

    session = Session(
        network=network.to(device).to(memory_format=torch.channels_last),
        hyperparameters=hyperparameters,
        train=images["train"],
        valid=images.get("valid"),
        device=device,
        bf16=use_bf16(hyperparameters.precision, device),
        save=save,
        stopped=stop.is_set,
    )
    steps = math.ceil(len(session.train) / hyperparameters.batch_size)
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


def _first_picture(images: dict[str, ImageSet]) -> bytes:
    folder = images.get("valid", images["train"]).folder
    return read_golden_body(folder.root / folder.paths[0])


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


def _write_output(
    directory: Path,
    trained: Trained,
    progress: Progress,
    test: ImageSet | None,
    evaluation: Evaluation | None,
) -> None:
    """metrics.json, scores.json and report.html under /opt/ml/output/data."""
    directory.mkdir(parents=True, exist_ok=True)
    history = {"history": progress.history, "best": progress.best}
    (directory / "metrics.json").write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
    items = []
    if test is not None and evaluation is not None:
        items = [
            Item(path=path, label=trained.labels[target], log_probabilities=row)
            for path, target, row in zip(
                test.folder.paths, test.folder.targets, evaluation.log_probabilities, strict=True
            )
        ]
    scores = score(items, trained.labels)
    write_scores(scores, directory / "scores.json")
    write_report(
        scores,
        directory / "report.html",
        title=f"{trained.architecture}: test split",
        images_dir=test.folder.root if test else None,
        history=progress.history,
        facts={name: str(value) for name, value in trained.hyperparameters.items()},
    )


def _say_last_metrics(progress: Progress, evaluation: Evaluation | None) -> None:
    for name, value in evaluation.metrics().items() if evaluation else ():
        print(metric_line(f"test_{name}", value), flush=True)
    for name, value in best_metrics(progress.history).items():
        print(metric_line(name, value), flush=True)


def _import(options: argparse.Namespace) -> int:
    """An artifact from weights that were trained elsewhere."""
    try:
        labels = read_labels(options.labels)
        network = build_network(options.architecture, len(labels))
        load_weights(network, read_state_dict(options.weights), source=str(options.weights))
        preprocess = Preprocess(resize=options.resize or options.image_size * 8 // 7, crop=options.image_size)
        trained = Trained(
            network=PixelNetwork(network, preprocess),
            architecture=options.architecture,
            labels=labels,
            preprocess=preprocess,
            golden_body=draw_golden_body(preprocess.resize),
        )
        export(trained, options.output / "model")
    except (JobError, ValueError, OSError) as error:
        logger.error("%s", error)
        return 1
    pack_artifact(options.output / "model", options.output / "model.tar.gz")
    logger.info("artifact=%s", options.output / "model.tar.gz")
    return 0


def _write_failure(path: Path, text: str) -> None:
    """The cause first: SageMaker shows the first 1024 characters as the job's FailureReason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:FAILURE_CHARACTERS], encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Run the training job laid out under a prefix, as SageMaker lays it out in /opt/ml.",
        epilog=f"Hyperparameters (strings, in input/config/hyperparameters.json): {', '.join(NAMES)}. "
        "On a laptop `python -m local train` lays the job out and runs it.",
    )
    parser.add_argument(
        "--prefix",
        type=Path,
        default=Path(os.environ.get(PREFIX_VARIABLE, DEFAULT_PREFIX)),
        help="default: $KENNEL_PREFIX, else /opt/ml",
    )
    verbs = parser.add_subparsers(dest="verb", title="other verbs", metavar="")
    importer = verbs.add_parser("import", help="make an artifact of an existing state dict")
    importer.add_argument("--weights", type=Path, required=True, help=".pth, .pt or .safetensors state dict")
    importer.add_argument("--architecture", required=True, help="cnn or a torchvision name, e.g. resnet50")
    importer.add_argument("--labels", type=Path, required=True, help="a label per line, in target order")
    importer.add_argument("--output", type=Path, required=True, help="gets model/ and model.tar.gz")
    importer.add_argument("--image-size", type=int, default=224, help="side of the network's input (224)")
    importer.add_argument("--resize", type=int, default=0, help="shorter side before the crop (x 8 / 7)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
