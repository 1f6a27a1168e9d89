"""Faults on purpose: `python -m chaos --artifact model.tar.gz [--short] [--soak 30] [--only kill,overload]`.

One PASS, FAIL or SKIP line per scenario; the last line of stdout is JSON. Exit code 1 where one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from artifact.bundle import unpack_artifact
from artifact.cores import available_cores
from chaos.lab import Lab, Result
from chaos.mutations import read_seeds
from chaos.scenarios import SCENARIOS
from local.platform import REPOSITORY

logger = logging.getLogger(__name__)

FAMILIAR = 220  # pictures, from all classes


def main() -> None:
    """Parse, run, tell."""
    arguments = _parse(sys.argv[1:])
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    arguments.output.mkdir(parents=True, exist_ok=True)
    scratch = arguments.output / time.strftime("%Y%m%d-%H%M%S")
    scratch.mkdir()
    artifact = arguments.artifact or train_shapes(scratch)
    familiar = arguments.familiar or (None if arguments.artifact else scratch / "shapes/test")
    lab = Lab(
        model_dir=open_model(artifact, scratch),
        bodies=read_bodies(arguments.images),
        scratch=scratch.resolve(),
        seeds=read_seeds([folder for folder in (arguments.images, arguments.odd) if folder]),
        familiar=read_bodies(familiar, limit=FAMILIAR) if familiar else [],
        odd=arguments.odd,
        short=arguments.short,
        connections=arguments.connections,
        soak_minutes=arguments.soak,
    )
    results = asyncio.run(run(lab, arguments.only or list(SCENARIOS)))
    passed = all(result.passed for result in results)
    print(json.dumps({"passed": passed, "scenarios": [asdict(result) for result in results]}))
    sys.exit(0 if passed else 1)


async def run(lab: Lab, names: list[str]) -> list[Result]:
    """One after the other: each has the machine for itself."""
    results = []
    for name in names:
        try:
            result = await SCENARIOS[name](lab)
        except RuntimeError as error:  # a server that does not start, or does not come back
            result = Result(name=name, passed=False, numbers={"error": str(error)})
        print(result.line(), flush=True)
        results.append(result)
    return results


def train_shapes(scratch: Path) -> Path:
    """A real network of a usual size: with a toy's answers, a millisecond each, most of a load is HTTP.

    Its head alone is trained: what it knows does not matter here, and half a minute does.
    """
    data, output = scratch / "shapes", scratch / "training"
    logger.info("training a model on drawn shapes (--artifact gives another)")
    train = ["local", "train", "recipes/shapes.toml", "--data", str(data), "--output", str(output)]
    network = ("architecture=resnet18", "image_size=224", "freeze_backbone=true", "epochs=1")
    settings = [f"--set={setting}" for setting in (*network, "doctor=off", "quantize=off", "debug=false")]
    for command in (["examples.shapes", str(data)], [*train, *settings]):
        subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
        )
    return output / "model.tar.gz"


def open_model(artifact: Path, scratch: Path) -> Path:
    """The folder of an unpacked bundle."""
    if artifact.is_dir():
        return artifact.resolve()
    unpack_artifact(artifact, scratch / "model")
    return (scratch / "model").resolve()


def read_bodies(folder: Path, *, limit: int = 64) -> list[bytes]:
    """Up to so many JPEGs found below it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        sys.exit(f"{folder} holds no JPEG; name a folder that does with --images.")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // limit)][:limit]]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(SCENARIOS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(SCENARIOS)}")
    return names


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--artifact", type=Path, help="model.tar.gz or its folder (default: train one)")
    parser.add_argument("--images", type=Path, default=REPOSITORY / "examples/images", help="JPEGs to send")
    parser.add_argument("--odd", type=Path, help="the collection of docs/odd-images.md; fuzzed too")
    parser.add_argument("--familiar", type=Path, help="JPEGs like those the artifact was validated on")
    parser.add_argument("--output", type=Path, default=Path("build/chaos"), help="logs, soak.csv, soak.svg")
    parser.add_argument("--short", action="store_true", help="three minutes instead of thirty")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="at 80 %% of the peak")
    parser.add_argument("--only", type=_names, metavar="NAME,...", help=", ".join(SCENARIOS))
    parser.add_argument("--connections", type=int, default=4 * available_cores(), help="of the full load")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
