"""`python -m training` runs the job SageMaker laid out under /opt/ml (or --prefix) and exports the artifact.

`python -m training import` makes an artifact of an existing state dict.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from training.hyperparameters import NAMES, HyperparameterError, Hyperparameters, parse_hyperparameters
from training.job import (
    DEFAULT_PREFIX,
    PREFIX_VARIABLE,
    Job,
    JobError,
    read_job,
    release_failure,
    reserve_failure,
    write_failure,
)
from training.launch import Launcher, processes_per_host

logger = logging.getLogger("training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 also for a job that SIGTERM stopped in good order; 1 after one sentence on what failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    return _import(options) if options.verb == "import" else _run(options)


def _run(options: argparse.Namespace) -> int:
    failure_path = options.prefix / "output" / "failure"
    if options.local_rank is not None:
        return _run_part(options, failure_path)
    reserve_failure(failure_path)
    try:
        return _run_part(options, failure_path)
    finally:
        release_failure(failure_path)


def _run_part(options: argparse.Namespace, failure_path: Path) -> int:
    """Start the processes that train, or be one of them where --local-rank says so."""
    prefix: Path = options.prefix
    try:
        job = read_job(prefix)
        hyperparameters = parse_hyperparameters(job.raw_hyperparameters)
        processes = processes_per_host()
        if options.local_rank is None:
            launcher = Launcher(
                failure_path=failure_path,
                checkpoint_dir=job.checkpoint_dir,
                restarts=hyperparameters.restarts,
            )
            command = [sys.executable, "-m", "training", "--prefix", str(prefix), "--local-rank"]
            return launcher.run([[*command, str(rank)] for rank in range(processes)])
        return _train(job, hyperparameters, processes, options)
    except (JobError, HyperparameterError) as error:
        write_failure(failure_path, str(error))
        logger.error("%s", error)
        return 1


def _train(job: Job, hyperparameters: Hyperparameters, processes: int, options: argparse.Namespace) -> int:
    gc.disable()  # what is imported stays: looking through it for garbage takes a quarter of the start
    from training.failure import explain  # torch takes seconds: a typo is answered before
    from training.run import run

    gc.freeze()  # and would take as long again while training and at the end
    gc.enable()
    try:
        run(
            job,
            hyperparameters,
            processes_per_host=processes,
            local_rank=options.local_rank,
            attempt=options.attempt,
        )
    except JobError:
        raise
    except Exception as error:
        logger.exception("the training job failed")
        write_failure(job.failure_path, f"{explain(error)}\n\n{traceback.format_exc()[-500:]}")
        return 1
    return 0


def _import(options: argparse.Namespace) -> int:
    from artifact.preprocess import Preprocess
    from training.importing import import_weights

    try:
        artifact = import_weights(
            options.weights,
            architecture=options.architecture,
            labels_path=options.labels,
            output=options.output,
            preprocess=Preprocess(
                resize=options.resize or options.image_size * 8 // 7, crop=options.image_size
            ),
        )
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 1
    print(artifact)
    return 0


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
    parser.add_argument("--local-rank", type=int, help=argparse.SUPPRESS)  # a process of training/launch.py
    parser.add_argument("--attempt", type=int, default=0, help=argparse.SUPPRESS)
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
