"""What the training benchmarks compute from what they measured."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training import subsets
from benchmarks.training.peers.clock import WARMUP_STEPS, Clock, TimeIsUp
from benchmarks.transfer import compare


class _Loader:
    """Batches that come late."""

    def __init__(self, count: int, wait_seconds: float) -> None:
        self._left, self._wait_seconds = count, wait_seconds

    def __iter__(self) -> _Loader:
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        self._left -= 1
        time.sleep(self._wait_seconds)
        return 0


def test_waiting_for_data_is_told_from_the_step() -> None:
    clock = Clock(seconds=0.0)
    for _ in clock.watch(_Loader(8, 0.03), 4):
        time.sleep(0.01)

    report = clock.report()

    assert clock.images == 4 * (8 - WARMUP_STEPS)
    assert 0.5 < report["data_wait_share"] < 1.0
    assert report["images_per_second"] < 4 / 0.04


def test_clock_ends_the_loop_when_its_seconds_are_over() -> None:
    clock = Clock(seconds=0.02)

    with pytest.raises(TimeIsUp):
        for _ in clock.watch(_Loader(1000, 0.005), 1):
            pass

    assert clock.steps < 100


def test_margin_of_transfer_is_the_mean_with_an_interval_around_it() -> None:
    random = np.random.default_rng(1)
    better, worse = random.random((5, 300)) < 0.8, random.random((5, 300)) < 0.5

    result = compare(better, worse)

    low, high = result["margin_interval"]
    assert low < result["margin"] < high
    assert 0.2 < low and high < 0.4


def test_equal_networks_have_an_interval_around_zero() -> None:
    random = np.random.default_rng(2)
    first, second = random.random((5, 300)) < 0.6, random.random((5, 300)) < 0.6

    low, high = compare(first, second)["margin_interval"]

    assert low < 0.0 < high


def test_subset_links_the_first_classes_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in "cab":
        (tmp_path / "shared/set/train" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "shared/set/train" / label / f"{number}.jpg").touch()
    monkeypatch.setattr(subsets, "SHARED", tmp_path / "shared")
    monkeypatch.setattr(subsets, "WORK", tmp_path / "work")

    root = subsets.link_subset("set", "small", classes=2, per_class={"train": 2})

    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg")) == [
        "train/a/0.jpg", "train/a/1.jpg", "train/b/0.jpg", "train/b/1.jpg",
    ]  # fmt: skip
    assert subsets.count_images(root / "train") == 4
