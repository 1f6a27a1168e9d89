"""Training pictures that lie on one host each, as SageMaker's ShardedByS3Key deals them out.

The job's pictures are numbered host by host. Of a batch, which all ranks know, each takes those its host
holds; gradients are weighted by their number, so the step is the whole batch's, as with copies everywhere.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.labels import check_labels
from training.data import ImageSet, find_labels
from training.distributed import Place, World
from training.job import JobError

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shards:
    """`sizes` are the pictures of each host; empty where every host holds all of them."""

    sizes: tuple[int, ...] = ()

    @property
    def starts(self) -> list[int]:
        """Number of each host's first picture."""
        return [0, *accumulate(self.sizes)][:-1]

    def first(self, place: Place) -> int:
        """Number of the first picture that this host holds."""
        return self.starts[place.host_index] if self.sizes else 0

    def order(self, count: int, random: np.random.Generator) -> Numbers:
        """A permutation of all `count` numbers; every stretch has its part of each host's pictures."""
        if not self.sizes:
            return random.permutation(count)
        hosts = list(zip(self.starts, self.sizes, strict=True))
        numbers = np.concatenate([start + random.permutation(size) for start, size in hosts])
        turns = np.concatenate([(np.arange(size) + 0.5) / size for size in self.sizes])
        return numbers[np.argsort(turns, kind="stable")]

    def own(self, numbers: Numbers, place: Place) -> Numbers:
        """Positions in `numbers` of the pictures that are this rank's to work on."""
        if not self.sizes:
            return np.arange(len(numbers))[place.rank :: place.size]
        start = self.first(place)
        held = (numbers >= start) & (numbers < start + self.sizes[place.host_index])
        return np.flatnonzero(held)[place.local_rank :: place.processes_per_host]

    def smallest_share(self, numbers: Numbers, place: Place) -> int:
        """The fewest pictures that a rank of this world gets of these."""
        if not self.sizes:
            return len(numbers) // place.size
        hosts = np.searchsorted(self.starts, numbers, side="right") - 1
        return int(np.bincount(hosts, minlength=len(self.sizes)).min()) // place.processes_per_host


EVERYWHERE = Shards()


def gather_labels(root: Path, world: World) -> tuple[str, ...]:
    """Of all hosts together: a host may hold pictures of some classes only. Raises JobError."""
    names = sorted(set().union(*world.gather(find_labels(root))))
    try:
        return tuple(check_labels(names))
    except ValueError as error:
        raise JobError(
            f"{root} needs one folder of images per class, on all hosts together: {error}"
        ) from error


def join_shards(images: ImageSet, world: World) -> tuple[ImageSet, Shards]:
    """The job's whole training split, of which `pixels` are this host's alone, and who holds what.

    Raises JobError where two hosts hold the same file: then they were not dealt out.
    """
    mine = (images.folder.paths, images.folder.targets, images.fingerprint)
    parts = world.gather(mine)[:: world.place.processes_per_host]  # the processes of a host hold the same
    paths = tuple(path for part in parts for path in part[0])
    (path, holders), *_ = Counter(paths).most_common(1)
    if holders > 1:
        raise JobError(
            f"{path} lies on {holders} hosts, though the channel train is ShardedByS3Key: give each image to "
            "one host, or use FullyReplicated."
        )
    targets = np.concatenate([part[1] for part in parts])
    fingerprint = hashlib.sha256("\n".join(part[2] for part in parts).encode()).hexdigest()
    folder = replace(images.folder, paths=paths, targets=targets)
    shards = Shards(tuple(len(part[0]) for part in parts))
    return replace(images, folder=folder, fingerprint=fingerprint), shards
