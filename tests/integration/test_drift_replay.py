"""A replayed shifted set raises the drift metric and the original does not, on real satellite images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from artifact.baseline import SIGNALS, Baseline, build_baseline, read_size
from artifact.preprocess import Preprocess, decode_pixels
from serving.drift import ALERT_PSI, DriftWindow, has_drifted, stability
from serving.telemetry import WatchedPredictor, collect, note_size
from tests.bundles import TinyNetwork

PREPROCESS = Preprocess(resize=128, crop=128)
NUM_VALID, NUM_LIVE = 600, 1000
Shift = Callable[[Image.Image], Image.Image]


class TinyPredictor:
    """A seeded network that has seen nothing: its answers still follow the pixels."""

    labels: tuple[str, ...] = ("damage", "no_damage")
    preprocess = PREPROCESS
    precision = "fp32"
    concurrency = 1
    max_batch = 1

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._network = TinyNetwork(len(self.labels), PREPROCESS).eval()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(pixels.copy()))
        return np.asarray(torch.log_softmax(logits, dim=1).numpy())


def choose(folder: Path, count: int) -> list[bytes]:
    """Bodies from both classes, drawn by a seed."""
    paths = sorted(folder.rglob("*.jpeg")) + sorted(folder.rglob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))[:count]
    return [paths[index].read_bytes() for index in order]


def shifted(body: bytes, shift: Shift) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(body)) as image:
        shift(image.convert("RGB")).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor() -> TinyPredictor:
    return TinyPredictor()


@pytest.fixture(scope="module")
def baseline(real_images: Path, predictor: TinyPredictor) -> Baseline:
    bodies = choose(real_images / "hurricane/valid", NUM_VALID)
    pixels = np.stack([decode_pixels(body, PREPROCESS) for body in bodies])
    return build_baseline(pixels, predictor.predict(pixels), [read_size(body) for body in bodies])


@pytest.fixture(scope="module")
def live(real_images: Path) -> list[bytes]:
    return choose(real_images / "hurricane/test", NUM_LIVE)


def replay(bodies: Iterable[bytes], predictor: TinyPredictor, baseline: Baseline) -> dict[str, float]:
    """Signal -> PSI, the way requests go: decoded, predicted and noted one by one, the bins sent along."""
    watched = WatchedPredictor(predictor, baseline)
    window = DriftWindow(baseline.counts())
    for body in bodies:
        with collect() as notes:
            note_size(read_size(body))
            watched.predict(decode_pixels(body, PREPROCESS)[None])
        window.add(notes.report().pictures)
    window.add(watched.measure_held())
    return stability(baseline.counts(), window.counts)


@pytest.mark.real_images
def test_original_test_split_stays_silent(
    live: list[bytes], predictor: TinyPredictor, baseline: Baseline
) -> None:
    indices = replay(live, predictor, baseline)

    assert set(indices) == set(SIGNALS)
    assert not has_drifted(indices), indices


@pytest.mark.real_images
@pytest.mark.parametrize(
    ("shift", "signal"),
    [
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(0.5), "brightness", id="darkened"),
        pytest.param(lambda image: image.filter(ImageFilter.GaussianBlur(2)), "blur", id="blurred"),
        pytest.param(lambda image: image.resize((64, 64)), "shorter_side", id="shrunk"),
        pytest.param(lambda image: image.resize((256, 128)), "aspect", id="stretched"),
    ],
)
def test_shifted_test_split_raises_the_alert(
    shift: Shift, signal: str, live: list[bytes], predictor: TinyPredictor, baseline: Baseline
) -> None:
    indices = replay((shifted(body, shift) for body in live[:400]), predictor, baseline)

    assert has_drifted(indices)
    assert indices[signal] > 2 * ALERT_PSI, indices
