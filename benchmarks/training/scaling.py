"""What a second instance brings: images per second of one and of two, a core each, as real jobs."""

from __future__ import annotations

import logging
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from artifact.cores import available_cores
from benchmarks.training.contenders import ContenderError
from benchmarks.training.places import WORK
from benchmarks.training.subsets import link_subset
from local.platform import REPOSITORY
from local.tuning_plan import share_cores

logger = logging.getLogger(__name__)

EPOCHS = 5  # the first, in which torch and gloo warm up, is left out
SETTINGS = {
    "pretrained": "false",
    "freeze_backbone": "false",
    "quantize": "off",
    "doctor": "off",
    "batch_size": "32",
    "epochs": str(EPOCHS),
}
# Much work and 45 MB of gradients a step; little work and 1 MB.
CASES = {
    "resnet18": SETTINGS | {"architecture": "resnet18", "image_size": "224"},
    "cnn": SETTINGS | {"architecture": "cnn", "image_size": "64", "resize": "64"},
}
SPEED = re.compile(r"metric images_per_second=([\d.]+);")


def measure_scaling() -> dict[str, Any]:
    """By network: images per second of one instance on one core, of two on a core each, of one on both."""
    data = {
        "resnet18": link_subset("dogs", "dogs-scaling", classes=40, per_class={"train": 8, "valid": 1}),
        "cnn": link_subset(
            "hurricane", "hurricane-scaling", classes=2, per_class={"train": 2000, "valid": 20}
        ),
    }
    result: dict[str, Any] = {"cores": available_cores()}
    for network, settings in CASES.items():
        half = share_cores(0, 2)
        one = _images_per_second(data[network], settings, instances=1, cores=half)
        two = _images_per_second(data[network], settings, instances=2)
        whole = _images_per_second(data[network], settings, instances=1)
        result[network] = {
            "one_on_half_the_cores": one,
            "two_on_half_the_cores_each": two,
            "one_on_all_cores": whole,
            "two_to_one": two / one,
        }
    return result


def _images_per_second(
    data: Path, settings: dict[str, str], *, instances: int, cores: tuple[int, ...] = ()
) -> float:
    """The median of the epochs after the first. Raises ContenderError."""
    folder = WORK / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(f'name = "scaling"\n[training]\ninstance_count = {instances}\n')
    command = [sys.executable, "-m", "local", "train", str(recipe), "--data", str(data)]
    command += [
        "--output",
        str(folder / "job"),
        *(f"--set={name}={value}" for name, value in settings.items()),
    ]
    logger.info("%s", " ".join(command[1:]))
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    done = subprocess.run([*pinned, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    speeds = [float(speed) for speed in SPEED.findall(done.stdout)][-(EPOCHS - 1) :]
    if done.returncode or len(speeds) < EPOCHS - 1:
        raise ContenderError(f"{' '.join(command)} failed: {done.stderr[-1500:]}")
    return statistics.median(speeds)
