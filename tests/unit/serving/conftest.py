"""One tiny artifact, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.handler import Predictor, model_fn
from tests.bundles import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("serving") / "model")


@pytest.fixture(scope="session")
def predictor(tiny_bundle: Path) -> Predictor:
    return model_fn(tiny_bundle)
