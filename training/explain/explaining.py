"""Explain a folder of pictures by an artifact: maps, their faithfulness, and what they are on average."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.bundle import Bundle
from artifact.network import PixelNetwork
from artifact.preprocess import ImageError, read_pixels
from training.data import IMAGE_SUFFIXES
from training.explain.faithfulness import Faithfulness, measure_faithfulness, predict_without_random
from training.explain.methods import METHODS, Map, Question, hide
from training.explain.network import ExplainError, load_network
from training.explain.pictures import draw_map, draw_picture, lift
from training.progress import progress

logger = logging.getLogger(__name__)

MOST_PICTURED = 48  # pictures that are kept for the page; the figures are of all
BRIGHTEST_PERCENTILE = 99.0  # a single pixel must not leave the rest of a map dark


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Of one picture. Probabilities are those of the predicted label."""

    path: str  # posix, relative to the folder of pictures
    label: str  # of the folder it lies in; empty where that is no label of the artifact
    predicted: str
    probability: float
    without_random: float  # with a random fifth hidden, mean of several draws
    scores: dict[str, Faithfulness]  # by method
    thumbnails: dict[str, str] = field(
        repr=False
    )  # data URIs: `picture` and by method; empty beyond MOST_PICTURED


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAverage:
    """Where the network looks for one label: means over the pictures predicted as it."""

    label: str
    count: int
    thumbnails: dict[str, str] = field(repr=False)  # `picture` and by method


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanations:
    """A folder's."""

    methods: tuple[str, ...]
    pictures: tuple[Explanation, ...]
    averages: tuple[ClassAverage, ...]
    unreadable: tuple[tuple[str, str], ...]  # path, reason


def explain_folder(
    bundle: Bundle, images_dir: Path, *, methods: Sequence[str], limit: int, seed: int = 0
) -> Explanations:
    """Up to `limit` pictures, taken from all folders in turn. Raises ExplainError where there is none."""
    network = load_network(bundle)
    paths = choose_images(images_dir, limit=limit)
    averages = Averages(side=bundle.manifest.preprocess.crop, methods=methods)
    pictures: list[Explanation] = []
    unreadable: list[tuple[str, str]] = []
    for number, path in enumerate(progress(paths, total=len(paths), what="explain")):
        name = path.relative_to(images_dir).as_posix()
        try:
            pixels = read_pixels(path, bundle.manifest.preprocess)
        except ImageError as error:
            logger.warning("skipped %s: %s", path, error)
            unreadable.append((name, str(error)))
            continue
        explanation, maps = explain_picture(
            network, pixels, labels=bundle.manifest.labels, name=name, methods=methods, seed=seed + number
        )
        averages.add(explanation.predicted, pixels, maps)
        if len(pictures) >= MOST_PICTURED:
            explanation.thumbnails.clear()
        pictures.append(explanation)
    if not pictures:
        raise ExplainError(
            f"None of {len(unreadable)} files in {images_dir} could be read: {unreadable[0][1]}"
        )
    return Explanations(
        methods=tuple(methods),
        pictures=tuple(pictures),
        averages=averages.draw(),
        unreadable=tuple(unreadable),
    )


def explain_picture(
    network: PixelNetwork,
    pixels: NDArray[np.uint8],
    *,
    labels: Sequence[str],
    name: str,
    methods: Sequence[str],
    seed: int,
) -> tuple[Explanation, dict[str, Map]]:
    """The predicted label explained; the maps (H, W) are as `scale_map` leaves them. `pixels` (H, W, 3)."""
    images = network.normalise(torch.from_numpy(pixels)[None])
    with torch.no_grad():
        probabilities = torch.softmax(network.network(images), dim=1)[0]
    target = int(probabilities.argmax())
    question = Question(network=network.network, images=images, hidden=hide(images), target=target, seed=seed)
    attributions = {method: METHODS[method](question) for method in methods}
    maps = {method: scale_map(attribution) for method, attribution in attributions.items()}
    explanation = Explanation(
        path=name,
        label=next((part for part in reversed(Path(name).parts[:-1]) if part in labels), ""),
        predicted=labels[target],
        probability=float(probabilities[target]),
        without_random=predict_without_random(question),
        scores={
            method: measure_faithfulness(question, attribution)
            for method, attribution in attributions.items()
        },
        thumbnails={
            "picture": draw_picture(pixels),
            **{method: draw_map(pixels, scaled) for method, scaled in maps.items()},
        },
    )
    return explanation, maps


class Averages:
    """Running sums by predicted label, so that a folder of any size fits."""

    def __init__(self, *, side: int, methods: Sequence[str]) -> None:
        self._side, self._methods = side, methods
        self._counts: dict[str, int] = {}
        self._sums: dict[str, dict[str, NDArray[np.float64]]] = {}

    def add(self, label: str, pixels: NDArray[np.uint8], maps: dict[str, Map]) -> None:
        """Count one picture."""
        sums = self._sums.setdefault(
            label,
            {"picture": np.zeros((self._side, self._side, 3))}
            | {method: np.zeros((self._side, self._side)) for method in self._methods},
        )
        sums["picture"] += pixels
        for method, scaled in maps.items():
            sums[method] += scaled
        self._counts[label] = self._counts.get(label, 0) + 1

    def draw(self) -> tuple[ClassAverage, ...]:
        """Sorted by label."""
        averages = []
        for label, count in sorted(self._counts.items()):
            sums = self._sums[label]
            mean = (sums["picture"] / count).round().astype(np.uint8)
            drawn = {method: draw_map(mean, lift(sums[method])) for method in self._methods}
            averages.append(
                ClassAverage(label=label, count=count, thumbnails={"picture": draw_picture(mean), **drawn})
            )
        return tuple(averages)


def scale_map(attribution: Map) -> Map:
    """What speaks for the label, 0 to 1."""
    positive = np.maximum(attribution, 0.0)
    brightest = float(np.percentile(positive, BRIGHTEST_PERCENTILE))
    return np.clip(positive / brightest, 0.0, 1.0) if brightest > 0 else np.asarray(positive > 0, dtype=float)


def choose_images(images_dir: Path, *, limit: int) -> list[Path]:
    """From each folder in turn, so that few pictures show all labels. Raises ExplainError for none."""
    if not images_dir.is_dir():
        raise ExplainError(
            f"{images_dir} is not a folder; give one with pictures, or with a folder per class."
        )
    folders: dict[Path, list[Path]] = {}
    for path in sorted(images_dir.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
            folders.setdefault(path.parent, []).append(path)
    if not folders:
        raise ExplainError(f"{images_dir} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    turns = [
        (turn, place, path) for place, files in enumerate(folders.values()) for turn, path in enumerate(files)
    ]
    return [path for *_, path in sorted(turns)[:limit]]
