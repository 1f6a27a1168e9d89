"""Images dealt out to the hosts: every one is worked on once, and each batch has its part of each host's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training.sessions import make_images
from training.distributed import Place, World
from training.job import JobError
from training.shards import EVERYWHERE, Shards, gather_labels, join_shards

SHARDS = Shards((30, 10, 20))
HOSTS = ("algo-1", "algo-2", "algo-3")


class Heard(World):
    """The first rank of two; the other's words are known beforehand."""

    def __init__(self, other: Any) -> None:
        super().__init__(Place(hosts=HOSTS[:2]))
        self._other = other

    def gather(self, value: Any) -> list[Any]:
        return [value, self._other]


def test_every_stretch_of_the_order_has_its_part_of_each_host() -> None:
    order = SHARDS.order(60, np.random.default_rng(0))

    hosts = np.searchsorted(SHARDS.starts, order, side="right")
    assert sorted(order.tolist()) == list(range(60))
    for stretch in np.array_split(hosts, 5):
        assert np.abs(np.bincount(stretch, minlength=4)[1:] - [6, 2, 4]).max() <= 1


def test_order_differs_from_epoch_to_epoch_within_each_host() -> None:
    first, second = (SHARDS.order(60, np.random.default_rng([0, epoch])) for epoch in (0, 1))

    assert (first != second).sum() > 40


def test_without_shards_the_order_is_a_plain_permutation() -> None:
    expected = np.random.default_rng(3).permutation(60)

    assert np.array_equal(EVERYWHERE.order(60, np.random.default_rng(3)), expected)


@pytest.mark.parametrize("shards", [SHARDS, EVERYWHERE])
@pytest.mark.parametrize("processes", [1, 2])
def test_ranks_share_a_batch_and_work_on_what_their_host_holds(shards: Shards, processes: int) -> None:
    batch = SHARDS.order(60, np.random.default_rng(1))[:24]
    places = [
        Place(hosts=HOSTS, host_index=host, processes_per_host=processes, local_rank=rank)
        for host in range(3)
        for rank in range(processes)
    ]

    shares = [shards.own(batch, place) for place in places]

    assert sorted(np.concatenate(shares).tolist()) == list(range(24))
    assert min(map(len, shares)) >= shards.smallest_share(batch, places[0]) > 0
    for place, share in zip(places, shares, strict=True):
        if shards.sizes:
            start = shards.first(place)
            assert ((batch[share] >= start) & (batch[share] < start + shards.sizes[place.host_index])).all()


def test_labels_are_those_of_all_hosts(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()

    assert gather_labels(tmp_path, Heard(["ant", "dog"])) == ("ant", "cat", "dog")


def test_pixels_stay_and_the_rest_is_told_of_all(tmp_path: Path) -> None:
    own, other = make_images(4, seed=1), make_images(6, seed=2)
    paths = tuple(f"other/{path}" for path in other.folder.paths)

    joined, shards = join_shards(own, Heard((paths, other.folder.targets, other.fingerprint)))

    assert shards.sizes == (4, 6)
    assert len(joined) == 10 and joined.pixels is own.pixels
    assert joined.folder.paths == own.folder.paths + paths
    assert joined.folder.targets.tolist() == [*own.folder.targets, *other.folder.targets]
    assert joined.fingerprint not in (own.fingerprint, other.fingerprint)


def test_file_on_two_hosts_is_refused() -> None:
    own = make_images(4, seed=1)
    same = (own.folder.paths, own.folder.targets, own.fingerprint)

    with pytest.raises(JobError, match=r"0.png lies on 2 hosts.*FullyReplicated"):
        join_shards(own, Heard(same))
