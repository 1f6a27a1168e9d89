"""`python -m training` runs the job SageMaker laid out under /opt/ml (or --prefix) and exports the artifact.

`python -m training import` makes an artifact of an existing state dict.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from artifact.preprocess import Preprocess
from training.hyperparameters import NAMES, HyperparameterError, parse_hyperparameters
from training.job import DEFAULT_PREFIX, FAILURE_CHARACTERS, PREFIX_VARIABLE, JobError, read_job

logger = logging.getLogger("training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 also for a job that SIGTERM stopped in good order; 1 after one sentence on what failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    return _import(options) if options.verb == "import" else _run(options.prefix)


def _run(prefix: Path) -> int:
    failure_path = prefix / "output" / "failure"
    try:
        job = read_job(prefix)
        hyperparameters = parse_hyperparameters(job.raw_hyperparameters)
        from training.run import run  # torch takes seconds to import: a typo is answered before

        run(job, hyperparameters)
    except (JobError, HyperparameterError) as error:
        _write_failure(failure_path, str(error))
        logger.error("%s", error)
        return 1
    except Exception as error:
        _write_failure(failure_path, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()[-700:]}")
        logger.exception("the training job failed")
        return 1
    return 0


def _import(options: argparse.Namespace) -> int:
    from training.run import import_weights

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
