"""Shared fixtures. KENNEL_SHARED says where the real images are; a test that needs them skips without."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.shapes import draw_shapes

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--aws: also the tests that cost money."""
    parser.addoption("--aws", action="store_true", help="also ask a real AWS account, which costs money")


def pytest_configure(config: pytest.Config) -> None:
    """A core for each process of `-n`: two torch programs that spin on every core take over twice as long.

    Whatever a test starts inherits it, and `artifact.cores` counts what the affinity leaves.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})
    gc.disable()  # until all is imported, which stays


def pytest_collection_finish(session: pytest.Session) -> None:
    """Garbage is looked for among what the tests make: a tenth less time than in all of torch, too."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Left out rather than skipped: nobody should miss them."""
    if not config.getoption("--aws"):
        items[:] = [item for item in items if item.get_closest_marker("live") is None]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the data doctor remembers stays inside the test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KENNEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real data sets (dogs, woof, hurricane, odd); skips where it is absent."""
    folder = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are absent: {folder} (set KENNEL_SHARED)")
    return folder


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers; skips where there is none."""
    try:
        done = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no docker command on PATH; install Docker to run this test")
    if done.returncode:
        pytest.skip(f"no Docker engine answers: {done.stderr.strip()}")


@pytest.fixture(scope="session")
def training_image(engine: None) -> str:
    """The image that `make build` made, or the one named in KENNEL_TRAINING_IMAGE."""
    return os.environ.get("KENNEL_TRAINING_IMAGE", "kennel/training:local")


@pytest.fixture(scope="session")
def serving_image(engine: None) -> str:
    """The image that `make build` made, or the one named in KENNEL_SERVING_IMAGE."""
    return os.environ.get("KENNEL_SERVING_IMAGE", "kennel/serving-cpu:local")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn ImageFolder set: train, valid, test."""
    destination = tmp_path_factory.mktemp("shapes")
    draw_shapes(destination, seed=1, images_per_class={"train": 16, "valid": 6, "test": 6})
    return destination


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedShapes:
    """What `python -m local train` left behind, and the images it learnt from."""

    data: Path
    output: Path

    @property
    def artifact(self) -> Path:
        """model.tar.gz"""
        return self.output / "model.tar.gz"


QUICK = {"epochs": "2", "image_size": "32", "resize": "36", "precision": "fp32"}


@pytest.fixture(scope="session")
def trained_shapes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedShapes:
    """One real training job for the whole suite, through the command line."""
    output = tmp_path_factory.mktemp("trained")
    settings = [f"--set={name}={value}" for name, value in QUICK.items()]
    command = ["train", "recipes/shapes.toml", "--data", str(shapes), "--output", str(output), *settings]
    run_local(*command, check=True)
    return TrainedShapes(data=shapes, output=output)


def run_local(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m local ...` in the repository, its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "local", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=check,
        timeout=300,
    )
