"""What a frozen backbone makes of the pictures, computed once: epochs then run the head alone.

The k-th view of a picture is the augmentation of epoch k, so a job of no more epochs than views learns what
it would have learnt without. By OpenVINO or torch, whichever is faster on this machine.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from artifact.network import Head, PixelNetwork, head_path
from artifact.preprocess import Preprocess
from training.augment import Draws, augment
from training.data import ImageSet
from training.distributed import World
from training.evaluate import torch_classifier
from training.feature_cache import FeatureCache, Floats, find_folder
from training.graph import build_graph, compile_graph
from training.hyperparameters import Hyperparameters
from training.progress import progress
from training.shards import EVERYWHERE, Shards

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache: another number where the same facts would give other features
BATCH = 32
MEASURED_IMAGES = 16
# Converting to OpenVINO takes as long as some hundred pictures.
SMALLEST_FOR_OPENVINO = 400
HEAD_TOLERANCE = 1e-3

ENGINES = ("openvino", "torch")

PixelsOf = Callable[[NDArray[np.int64]], NDArray[np.uint8]]  # numbers of pictures -> (N, H, W, 3)
Extract = Callable[[NDArray[np.uint8]], Floats]  # (N, H, W, 3) -> (N, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The head's inputs."""

    head: nn.Module
    views: tuple[Floats, ...]  # (num_train, width) each
    valid: Floats | None  # (num_valid, width)

    def of_epoch(self, epoch: int) -> Floats:
        """(num_train, width)"""
        return self.views[epoch % len(self.views)]


def collect_features(
    network: PixelNetwork,
    hyperparameters: Hyperparameters,
    *,
    train: ImageSet,
    valid: ImageSet | None,
    device: torch.device,
    bf16: bool,
    world: World,
    shards: Shards = EVERYWHERE,
    engine: str = "",
) -> Features | None:
    """Each rank's share computed by it, or all from the cache; None where the pictures are needed.

    `shards` are those of `train`.


    `engine` is one of ENGINES; empty is the faster one, which is measured.
    """
    if not hyperparameters.freeze_backbone or not hyperparameters.feature_views:
        return None
    if hyperparameters.mixup or hyperparameters.cutmix:
        logger.info("features are not kept: mixup and cutmix mix pictures, other ones in each epoch")
        return None
    backbone = cut_head(network, side=hyperparameters.image_size)
    if backbone is None:
        logger.warning("features are not kept: %s has layers after its head", hyperparameters.architecture)
        return None
    extractor = _Extractor(
        backbone, hyperparameters, device=device, bf16=bf16, world=world, engine=engine, images=train
    )
    augmented = hyperparameters.augmentation != "none"
    num_views = min(hyperparameters.feature_views, hyperparameters.epochs) if augmented else 1
    return Features(
        head=network.network.get_submodule(head_path(network.network)),
        views=tuple(extractor.view(train, view, shards) for view in range(num_views)),
        valid=extractor.plain(valid) if valid is not None else None,
    )


def cut_head(network: PixelNetwork, *, side: int) -> PixelNetwork | None:
    """A copy that ends where the head begins; None where more than the head follows there (squeezenet)."""
    path = head_path(network.network)
    head = network.network.get_submodule(path)
    backbone = copy.deepcopy(network).eval()
    parent, _, name = path.rpartition(".")
    setattr(backbone.network.get_submodule(parent), name, nn.Identity())
    pixels = torch.arange(side * side * 3, device=network.mean.device).to(torch.uint8)
    pixels = pixels.reshape(1, side, side, 3)
    network.eval()  # the loop sets each epoch's mode
    with torch.inference_mode():
        features = backbone(pixels)
        if features.ndim != 2 or not isinstance(head, nn.Linear | Head):
            return None
        same = torch.allclose(head(features), network(pixels), atol=HEAD_TOLERANCE)
    return backbone if same else None


class _Extractor:
    """Pictures to features by one engine, which is chosen once."""

    def __init__(
        self,
        backbone: PixelNetwork,
        hyperparameters: Hyperparameters,
        *,
        device: torch.device,
        bf16: bool,
        world: World,
        engine: str,
        images: ImageSet,
    ) -> None:
        self._backbone, self._hyperparameters = backbone, hyperparameters
        self._device, self._bf16, self._world = device, bf16, world
        self._cache = FeatureCache(
            folder=find_folder(hyperparameters.feature_cache),
            limit_bytes=int(hyperparameters.feature_cache_gb * 1e9),
        )
        self._engines: dict[str, Extract] = {}
        self._facts: dict[str, Any] = {
            "format": FORMAT,
            "backbone": _checksum(backbone),
            "resize": hyperparameters.resize_side,
            "size": hyperparameters.image_size,
            "precision": "bf16" if bf16 else "fp32",
            "versions": [version(name) for name in ("torch", "openvino", "pillow")],
        }
        side = hyperparameters.image_size
        self._width = int(self._extract("torch", np.zeros((1, side, side, 3), np.uint8)).shape[1])
        self._facts["engine"] = self._engine = world.broadcast(
            engine or self._cache.remember(self._facts, functools.partial(self._choose, images))
        )

    def plain(self, images: ImageSet) -> Floats:
        """Of pictures as they are, already cropped."""
        return self._find(images, "plain", EVERYWHERE, lambda rows: images.pixels[rows])

    def view(self, images: ImageSet, view: int, shards: Shards) -> Floats:
        """Of the pictures as epoch `view` augments them."""
        settings = self._hyperparameters
        augmented = settings.augmentation != "none"
        facts = [settings.augmentation, settings.seed, view] if augmented else "centre"

        def draw(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            draws = Draws(seed=settings.seed, epoch=view, images=rows)
            first = shards.first(self._world.place)
            return augment(images.pixels, settings.augmentation, settings.image_size, draws, first=first)

        return self._find(images, facts, shards, draw)

    def _find(self, images: ImageSet, view: object, shards: Shards, pixels_of: PixelsOf) -> Floats:
        facts = self._facts | {"images": images.fingerprint, "view": view}
        shape = (len(images), self._width)

        def compute() -> Floats:
            what = f"features {images.folder.root.name} {view}"
            return self._compute(len(images), shards, pixels_of, what=what)

        if self._world.size == 1:
            return self._cache.find_or_compute(facts, shape, compute)
        found = self._cache.find(facts, shape)
        is_missing = self._world.any(found is None)
        if found is not None and not is_missing:
            return found
        features = compute()
        if self._world.place.local_rank == 0:
            self._cache.keep(facts, features)
        return features

    def _compute(self, count: int, shards: Shards, pixels_of: PixelsOf, *, what: str) -> Floats:
        """Each rank its share of every batch; the others' rows are zeros until the sum."""
        features = np.zeros((count, self._width), dtype=np.float32)
        order = shards.order(count, np.random.default_rng(0)) if shards.sizes else np.arange(count)
        starts = range(0, count, BATCH * self._world.size)
        for start in progress(starts, total=len(starts), what=what):
            rows = order[start : start + BATCH * self._world.size]
            answers = np.zeros((len(rows), self._width), dtype=np.float32)
            own = shards.own(rows, self._world.place)
            if len(own):
                answers[own] = self._extract(self._engine, pixels_of(rows[own]))
            features[rows] = self._world.sum(answers)
        return features

    def _extract(self, engine: str, pixels: NDArray[np.uint8]) -> Floats:
        if engine not in self._engines:
            self._engines[engine] = self._open(engine)
        return self._engines[engine](pixels)

    def _open(self, engine: str) -> Extract:
        if engine == "torch":
            backbone = self._backbone.to(memory_format=torch.channels_last)
            return torch_classifier(backbone, device=self._device, bf16=self._bf16)
        side = self._hyperparameters.image_size
        graph = build_graph(self._backbone, Preprocess(resize=self._hyperparameters.resize_side, crop=side))
        arithmetic = "bf16" if self._bf16 else "f32"
        return compile_graph(graph, arithmetic=arithmetic, num_threads=torch.get_num_threads())

    def _choose(self, images: ImageSet) -> str:
        """The faster engine on some pictures."""
        if self._device.type != "cpu" or len(images) < SMALLEST_FOR_OPENVINO:
            return "torch"
        side = self._hyperparameters.image_size
        pixels = np.ascontiguousarray(images.pixels[:MEASURED_IMAGES, :side, :side])
        seconds: dict[str, float] = {}
        for engine in ENGINES:
            self._extract(engine, pixels)
            started = time.perf_counter()
            self._extract(engine, pixels)
            seconds[engine] = time.perf_counter() - started
        fastest = min(seconds, key=seconds.__getitem__)
        logger.info(
            "features by %s (images_per_second: %s)",
            fastest,
            ", ".join(f"{engine} {len(pixels) / time_:.1f}" for engine, time_ in seconds.items()),
        )
        return fastest


def _checksum(backbone: PixelNetwork) -> str:
    """Of weights and structure: two architectures may have equal tensors."""
    digest = hashlib.sha256(repr(backbone).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
