"""Batches: who goes with whom never shows in the answers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.batching import Batcher, CostModel, padded_size


def pictures(count: int, *, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_cost_model_learns_a_line_and_follows_a_change() -> None:
    model = CostModel()
    assert model.predict(8) == 0.0

    for n in (1, 2, 4, 8, 16) * 4:
        model.observe(n, 0.010 + 0.001 * n)
    assert model.predict(32) == pytest.approx(0.042, rel=0.01)

    for n in (1, 2, 4, 8, 16) * 60:
        model.observe(n, 0.020 + 0.002 * n)
    assert model.predict(32) == pytest.approx(0.084, rel=0.02)


def test_cost_model_with_one_size_only_scales_it() -> None:
    model = CostModel()
    model.observe(4, 0.4)

    assert model.predict(2) == pytest.approx(0.2)


@pytest.mark.parametrize(("n", "padded"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64)])
def test_padded_size_is_the_next_power_of_two(n: int, padded: int) -> None:
    assert padded_size(n) == padded


def test_pictures_that_wait_together_run_together() -> None:
    first_runs = threading.Event()
    go_on = threading.Event()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        first_runs.set()
        go_on.wait(5)
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    batcher = Batcher(run, max_batch=8, target_seconds=10.0)
    bodies = pictures(12, side=2)
    with ThreadPoolExecutor(12) as threads:
        answers = [threads.submit(batcher.predict, bodies[:1])]
        first_runs.wait(5)
        answers += [threads.submit(batcher.predict, body[np.newaxis]) for body in bodies[1:]]
        time.sleep(0.2)
        go_on.set()
        results = [answer.result(5) for answer in answers]

    assert list(batcher.sizes) == [1, 8, 3]
    np.testing.assert_array_equal(np.concatenate(results)[:, 0], bodies[:, 0, 0, 0])


def test_batch_is_cut_where_the_oldest_would_wait_too_long() -> None:
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.02 * len(pixels))
        return np.zeros((len(pixels), 2), dtype=np.float32)

    batcher = Batcher(run, max_batch=64, target_seconds=0.1)
    for n in (1, 2, 4):
        batcher.predict(pictures(n, side=2))
    batcher.sizes.clear()

    batcher.predict(pictures(16, side=2))

    assert sum(batcher.sizes) == 16
    assert max(batcher.sizes) <= 4


def test_error_of_the_engine_reaches_every_picture_and_the_next_batch_works() -> None:
    broken = [True]

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if broken:
            broken.pop()
            raise RuntimeError("out of memory")
        return np.zeros((len(pixels), 2), dtype=np.float32)

    batcher = Batcher(run, max_batch=8, target_seconds=1.0)

    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.predict(pictures(3, side=2))
    assert batcher.predict(pictures(3, side=2)).shape == (3, 2)
