"""Compiled graphs on disk: whole and our own, or none."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.graph_cache import GraphCache
from serving.handler import Predictor, model_fn

KEY = ["2026.4", {"NUM_STREAMS": 1}]


def test_blob_comes_back_under_its_key_only(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "cache")

    cache.write(KEY, b"compiled")

    assert cache.read(KEY) == b"compiled"
    assert cache.read(["2026.5", {"NUM_STREAMS": 1}]) is None
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [lambda blob: blob[:-1], lambda blob: b"\0" + blob[1:], lambda _: b""])
def test_damaged_blob_is_not_used(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cache = GraphCache(tmp_path)
    cache.write(KEY, b"compiled")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))

    assert cache.read(KEY) is None


def test_folder_that_cannot_be_had_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = GraphCache(tmp_path / "file")

    cache.write(KEY, b"compiled")

    assert cache.read(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    GraphCache(tmp_path).write(KEY, b"another's")
    os.chown(tmp_path, 12345, 12345)

    assert GraphCache(tmp_path).read(KEY) is None


def load_and_predict(model_dir: Path, cache_dir: Path) -> list[float]:
    predictor = model_fn(model_dir, cache_dir=cache_dir)
    pixels = np.full((1, predictor.preprocess.crop, predictor.preprocess.crop, 3), 77, dtype=np.uint8)
    answer: list[float] = predictor.predict(pixels)[0].tolist()
    return answer


def test_processes_that_start_together_share_it(
    tiny_bundle: Path, predictor: Predictor, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(4) as processes:
        answers = list(processes.map(load_and_predict, [tiny_bundle] * 8, [tmp_path] * 8))

    assert len(list(tmp_path.iterdir())) == 1
    assert all(answer == answers[0] for answer in answers)
    crop = predictor.preprocess.crop
    expected = predictor.predict(np.full((1, crop, crop, 3), 77, dtype=np.uint8))[0]
    np.testing.assert_allclose(answers[0], expected, atol=1e-6)
