"""`python -m local train|tune|serve|transform|smoke|data`: the containers' executables as plain processes.

With --docker the real containers.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from artifact.bundle import BundleError
from local.archives import DownloadError
from local.download import fetch_dataset
from local.endpoint import start_endpoint
from local.platform import LocalError, forward_signals
from local.smoke import format_table, run_smoke
from local.training_job import run_training_job
from local.transform_command import add_transform_options, run_transform
from local.tuning_command import add_tuning_options, run_tuning
from training.hyperparameters import HyperparameterError
from training.recipe import read_recipe
from training.recipe_table import RecipeError
from tuning.results import ResultsError

TRAINING_IMAGE = "kennel/training:local"  # as `make build` names the last ones made here
SERVING_IMAGE = "kennel/serving-cpu:local"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after one sentence on stderr."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _end)
    try:
        return int(options.run(options))
    except (LocalError, BundleError, DownloadError, RecipeError, HyperparameterError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(options: argparse.Namespace) -> int:
    recipe = read_recipe(options.recipe).with_overrides(options.set)
    run_training_job(
        recipe,
        data=options.data,
        output=options.output,
        weights=options.weights,
        image=_training_image(options),
    )
    print(
        json.dumps(
            {
                "artifact": str(options.output / "model.tar.gz"),
                "report": str(options.output / "output" / "data" / "report.html"),
            }
        )
    )
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    """As an exception, so that a server started here is stopped too; the next signal must not prevent it."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _tune(options: argparse.Namespace) -> int:
    return run_tuning(options, _training_image(options))


def _serve(options: argparse.Namespace) -> int:
    with start_endpoint(options.artifact, port=options.port, image=_serving_image(options)) as endpoint:
        with forward_signals(endpoint.process) as stopped:
            print(
                f"{endpoint.url}/invocations answers. Try:\n"
                f"  curl --data-binary @examples/images/circle.jpg -H 'Content-Type: image/jpeg' "
                f"-H 'Accept: application/json; top=5' {endpoint.url}/invocations\n"
                "Ctrl-C ends it.",
                file=sys.stderr,
            )
            exit_code = endpoint.process.wait()
    return 0 if stopped.is_set() else exit_code


def _transform(options: argparse.Namespace) -> int:
    return run_transform(options, _serving_image(options))


def _smoke(options: argparse.Namespace) -> int:
    started = time.monotonic()
    steps = run_smoke(
        read_recipe(options.recipe),
        data=options.data,
        output=options.output,
        training_image=options.training_image,
        serving_image=options.serving_image,
    )
    print(format_table(steps), file=sys.stderr)
    print(json.dumps({"steps": len(steps), "seconds": round(time.monotonic() - started, 1)}))
    return 0


def _serving_image(options: argparse.Namespace) -> str | None:
    return (options.image or SERVING_IMAGE) if options.docker else None


def _training_image(options: argparse.Namespace) -> str | None:
    return (options.image or TRAINING_IMAGE) if options.docker else None


def _data(options: argparse.Namespace) -> int:
    print(fetch_dataset(read_recipe(options.recipe), options.output))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description="SageMaker acted out on this machine, without Docker and without AWS.",
        epilog="A first run: python -m examples.shapes build/shapes && "
        "python -m local train recipes/shapes.toml --data build/shapes --output build/run",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    _add_train(verbs.add_parser("train", help="images -> OUTPUT/model.tar.gz"))
    tune = verbs.add_parser("tune", help="search the recipe's [tuning.ranges] -> OUTPUT/best.toml")
    add_tuning_options(tune)
    _add_docker(tune)
    tune.set_defaults(run=_tune)

    serve = verbs.add_parser("serve", help="answer /ping and /invocations until Ctrl-C")
    serve.add_argument("--artifact", type=Path, required=True, help="model.tar.gz, or its unpacked folder")
    serve.add_argument("--port", type=int, default=8080, help="8080, as on SageMaker; 0 picks a free one")
    _add_docker(serve)
    serve.set_defaults(run=_serve)

    transform = verbs.add_parser("transform", help="score a whole folder: one .out per image, and a report")
    add_transform_options(transform)
    _add_docker(transform)
    transform.set_defaults(run=_transform)

    _add_smoke(verbs.add_parser("smoke", help="try both images under every restriction they may be run with"))
    data = verbs.add_parser("data", help="download and unpack the data set a recipe names")
    data.add_argument("recipe", type=Path, help="recipes/*.toml")
    data.add_argument("--output", type=Path, required=True, help="folder to unpack into")
    data.set_defaults(run=_data)
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("recipe", type=Path, help="recipes/*.toml")
    train.add_argument("--data", type=Path, required=True, help="folder with train, valid and test inside")
    train.add_argument("--output", type=Path, required=True, help="gets model.tar.gz, model/, output/")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a hyperparameter; may be given several times",
    )
    train.add_argument("--weights", type=Path, help="state dict to initialize the backbone from")
    _add_docker(train)
    train.set_defaults(run=_train)


def _add_smoke(smoke: argparse.ArgumentParser) -> None:
    smoke.add_argument("recipe", type=Path, help="recipes/*.toml; one epoch of it is trained")
    smoke.add_argument("--data", type=Path, required=True, help="folder with train, valid and test inside")
    smoke.add_argument("--output", type=Path, required=True, help="made anew")
    smoke.add_argument("--training-image", default=TRAINING_IMAGE)
    smoke.add_argument("--serving-image", default=SERVING_IMAGE)
    smoke.set_defaults(run=_smoke)


def _add_docker(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--docker", action="store_true", help="in the real container (`make build` makes it)")
    verb.add_argument("--image", help="with --docker; default: the one of the last `make build`")


if __name__ == "__main__":
    sys.exit(main())
