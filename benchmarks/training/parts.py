"""What is measured, part by part; each gives plain values for the JSON."""

from __future__ import annotations

import shutil
import statistics
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.training.contenders import run_kennel, run_peer
from benchmarks.training.places import SHARED, WORK
from benchmarks.training.subsets import count_images, link_subset
from local.platform import REPOSITORY

BATCH = 32  # the reference recipe's
SIDE = 224
ROUNDS = 3  # of each contender's speed
TARGET = 0.95  # of hurricane's validation split
TRIALS, TRIAL_EPOCHS, PARALLEL_TRIALS = 8, 3, 2  # as the recipes' searches
LEARNING_RATES = [0.003 * 2**index for index in range(TRIALS)]
PRETRAINING = {"architecture": "resnet50", "image_size": 112, "resize": 128, "augmentation": "aerial"}


def measure_speed(
    contenders: Sequence[str], networks: Sequence[str], seconds: float, image_size: int
) -> dict[str, Any]:
    """Full training on dogs, the contenders in turn: the machine's speed drifts by the minute."""
    result: dict[str, Any] = {}
    data = link_subset("dogs", "dogs-speed", classes=40, per_class={"train": 50, "valid": 1})
    for network in networks:
        rounds = [
            {name: _speed_of(name, data, network, seconds / ROUNDS, image_size) for name in contenders}
            for _ in range(ROUNDS)
        ]
        result[network] = {name: _medians([row[name] for row in rounds]) for name in contenders}
        result[network]["ratios"] = _medians([_speed_ratios(row) for row in rounds])
        result[network]["ratios_by_round"] = [_speed_ratios(row) for row in rounds]
    return result


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def _speed_of(name: str, data: Path, network: str, seconds: float, image_size: int) -> dict[str, float]:
    # Enough epochs that the seconds end it.
    if name == "kennel":
        settings = {"architecture": network, "batch_size": BATCH, "epochs": 1000, "image_size": image_size}
        return run_kennel(data, settings=settings, arguments=["--seconds", str(seconds)])
    ask = ["--seconds", str(seconds), "--epochs", "1000", "--batch-size", str(BATCH)]
    return run_peer(name, data, architecture=network, image_size=image_size, arguments=ask)


def _speed_ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Kennel's images per second, of each peer's."""
    if "kennel" not in rows:
        return {}
    own = rows["kennel"]["images_per_second"]
    return {name: own / row["images_per_second"] for name, row in rows.items() if name != "kennel"}


def measure_target(contenders: Sequence[str], max_epochs: int) -> dict[str, Any]:
    """Seconds until a validation accuracy of 0.95 on hurricane, start and decoding included.

    Kennel by its recipe, with the schedule of a job that is to reach no more than the target.
    """
    data = SHARED / "hurricane"
    recipe = tomllib.loads((REPOSITORY / "recipes/hurricane-cnn.toml").read_text())["hyperparameters"]
    rows: dict[str, Any] = {}
    for name in contenders:
        if name == "kennel":
            rows[name] = run_kennel(data, settings=recipe, arguments=["--target", str(TARGET)])
            continue
        ask = ["--target", str(TARGET), "--epochs", str(max_epochs), "--batch-size", str(BATCH)]
        rows[name] = run_peer(name, data, architecture="cnn", image_size=recipe["image_size"], arguments=ask)
    reached = {name: row["seconds"] for name, row in rows.items() if row["accuracy"] >= TARGET}
    own = reached.get("kennel", float("nan"))
    ratios = {name: own / seconds for name, seconds in reached.items() if name != "kennel"}
    return rows | {"time_ratios": ratios}


def measure_tuning(
    seconds: float, *, whole: bool, compared_trials: int, pretraining_images: int
) -> dict[str, Any]:
    """8 trials x 3 epochs of a frozen ResNet-50 on 1000 images of dogs.

    The reference takes hours, so without `whole` its speed is measured for `seconds` and its 8 x 3 passes
    over both splits are counted at that speed, which leaves out its starts and flatters it. Accuracy is
    compared with Kennel's own loop without kept features, over the same batches.
    """
    weights = pretrain(pretraining_images)
    data = link_subset("dogs", "dogs-1000", classes=40, per_class={"train": 25, "valid": 7})
    cache = WORK / "features"
    shutil.rmtree(cache, ignore_errors=True)

    began = time.perf_counter()
    trials = [_try_rate(data, weights, LEARNING_RATES[0], cache=cache)]
    with ThreadPoolExecutor(PARALLEL_TRIALS) as side_by_side:  # now that the first has left its features
        trials += side_by_side.map(
            lambda rate: _try_rate(data, weights, rate, cache=cache), LEARNING_RATES[1:]
        )
    total = time.perf_counter() - began
    compared = range(0, TRIALS, max(1, TRIALS // compared_trials))[:compared_trials]
    uncached = [_try_rate(data, weights, LEARNING_RATES[index], feature_views=0) for index in compared]
    pairs = [
        (trials[index]["accuracy"], one["accuracy"]) for index, one in zip(compared, uncached, strict=True)
    ]
    reference = _reference_tuning_seconds(data, weights, seconds, whole=whole)
    return {
        "kennel_seconds": total,
        "trial_seconds": [trial["seconds"] for trial in trials],
        "accuracies": [trial["accuracy"] for trial in trials],
        "accuracies_with_and_without_kept_features": pairs,
        "largest_accuracy_difference": max(abs(kept - not_kept) for kept, not_kept in pairs),
        "reference_seconds": reference,
        "reference_is_extrapolated": not whole,
        "speedup": reference / total,
    }


def _try_rate(
    data: Path, weights: Path, rate: float, *, cache: Path | None = None, **settings: Any
) -> dict[str, float]:
    frozen: dict[str, Any] = {"architecture": "resnet50", "freeze_backbone": True, "epochs": TRIAL_EPOCHS}
    frozen |= {"batch_size": BATCH, "image_size": SIDE, "learning_rate": rate}
    return run_kennel(data, settings=frozen | settings, arguments=["--weights", str(weights)], cache=cache)


def _reference_tuning_seconds(data: Path, weights: Path, seconds: float, *, whole: bool) -> float:
    frozen = ["--weights", str(weights), "--batch-size", str(BATCH)]
    if whole:
        ask = [*frozen, "--epochs", str(TRIAL_EPOCHS)]
        return sum(
            run_peer(
                "torchvision",
                data,
                architecture="resnet50",
                image_size=SIDE,
                arguments=[*ask, "--learning-rate", str(rate)],
            )["seconds"]
            for rate in LEARNING_RATES
        )
    ask = [*frozen, "--epochs", "1000", "--seconds", str(seconds)]
    speed = run_peer("torchvision", data, architecture="resnet50", image_size=SIDE, arguments=ask)
    images = count_images(data / "train") + count_images(data / "valid")
    return TRIALS * TRIAL_EPOCHS * images / speed["images_per_second"]


def pretrain(images: int) -> Path:
    """A ResNet-50 that has seen satellite tiles, once: no weights of ImageNet can be had here."""
    path = WORK / f"hurricane-resnet50-{images}.pt"
    if not path.is_file():
        data = link_subset(
            "hurricane", "hurricane-part", classes=2, per_class={"train": images // 2, "valid": 200}
        )
        run_kennel(
            data, settings=PRETRAINING | {"epochs": 2, "learning_rate": 0.02}, arguments=["--save", str(path)]
        )
    return path
