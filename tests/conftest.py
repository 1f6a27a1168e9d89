"""Shared fixtures. KENNEL_SHARED says where the real images are; a test that needs them skips without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.shapes import draw_shapes

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real data sets (dogs, woof, hurricane, odd); skips where it is absent."""
    folder = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are absent: {folder} (set KENNEL_SHARED)")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn ImageFolder set: train, valid, test."""
    destination = tmp_path_factory.mktemp("shapes")
    draw_shapes(destination, seed=1, images_per_class={"train": 16, "valid": 6, "test": 6})
    return destination
