"""Kennel's training against torchvision's reference recipe and a loop on timm, same images and machine.

    python -m benchmarks.training                              everything: hours on two cores
    python -m benchmarks.training --parts speed --seconds 60   images per second, data wait, memory
    python -m benchmarks.training --parts target               time to 0.95 on hurricane
    python -m benchmarks.training --parts tuning               8 trials x 3 epochs, backbone frozen
    python -m benchmarks.training --parts scaling              two instances against one
    python -m benchmarks.training --quick                      proves that it works, in some minutes

Run it alone on the machine. The environment of timm is made under build/bench/training at the first run and
kept. Writes build/bench/training/results.json; the last line on stdout is that JSON with the ratios.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

from benchmarks.serving.environments import PeerInstallError
from benchmarks.serving.machine import describe_machine
from benchmarks.training.contenders import CONTENDERS, ContenderError, prepare_peers
from benchmarks.training.parts import measure_speed, measure_target, measure_tuning
from benchmarks.training.places import SHARED, WORK
from benchmarks.training.scaling import measure_scaling

PARTS = ("speed", "target", "tuning", "scaling")
QUICK = {
    "seconds": 1.0,
    "image_size": 64,
    "networks": ["resnet18"],
    "parts": ["speed"],
    "pretraining_images": 200,
}


def main() -> None:
    """Exit code 1 where something could not be measured."""
    options = parse_options(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not SHARED.is_dir():
        sys.exit(f"There are no images in {SHARED}: set KENNEL_SHARED to the folder that has data/dogs.")
    try:
        result = measure(options)
    except (ContenderError, PeerInstallError) as error:
        sys.exit(f"The benchmark cannot go on: {error}")
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The command line; --quick only changes defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of steps for each speed, in 3 rounds")
    parser.add_argument("--image-size", type=int, default=224, help="of the speed part")
    parser.add_argument("--max-epochs", type=int, default=30, help="of a peer on the way to the target")
    parser.add_argument("--whole", action="store_true", help="tuning: run the reference's hours too")
    parser.add_argument("--compared-trials", type=int, default=2, help="tuning: also without kept features")
    parser.add_argument("--pretraining-images", type=int, default=4000)
    parser.add_argument("--quick", action="store_true")
    if "--quick" in arguments:
        parser.set_defaults(**QUICK)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that are asked for."""
    result: dict[str, Any] = {"machine": describe_machine()}
    prepare_peers(options.contenders if {"speed", "target"} & set(options.parts) else ())
    if "speed" in options.parts:
        result["speed"] = measure_speed(
            options.contenders, options.networks, options.seconds, options.image_size
        )
    if "target" in options.parts:
        result["target"] = measure_target(options.contenders, options.max_epochs)
    if "tuning" in options.parts:
        result["tuning"] = measure_tuning(
            options.seconds,
            whole=options.whole,
            compared_trials=options.compared_trials,
            pretraining_images=options.pretraining_images,
        )
    if "scaling" in options.parts:
        result["scaling"] = measure_scaling()
    return result


if __name__ == "__main__":
    main()
