"""The served-is-not-trained alarm, on real images through the real decoder and engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray

from artifact.predictions import log_softmax
from artifact.preprocess import Preprocess, read_pixels
from scoring.columns import tabulate
from scoring.comparison import Record, alarm_words, compare
from scoring.items import Item
from scoring.joining import list_files
from tests.bundles import TinyNetwork, convert_network

RIGHT = Preprocess(resize=72, crop=64)
LABELS = tuple(f"breed {number}" for number in range(10))

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def files(real_images: Path) -> dict[str, Path]:
    root = real_images / "woof/test"
    return {path: root / path for path in sorted(list_files(root))[::2]}


def serve(
    files: dict[str, Path],
    preprocess: Preprocess,
    spoil: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    threads: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Each image decoded, then predicted by the engine, one at a time."""
    torch.manual_seed(0)
    network = TinyNetwork(len(LABELS), preprocess).eval()
    compiled = openvino.compile_model(
        convert_network(network, RIGHT.crop), "CPU", {"INFERENCE_NUM_THREADS": threads}
    )
    return {
        path: log_softmax(compiled(spoil(read_pixels(file, preprocess))[np.newaxis])[0])[0]
        for path, file in files.items()
    }


@pytest.fixture(scope="module")
def recorded(files: dict[str, Path]) -> Record:
    """What the trainer would have stored."""
    rows = serve(files, RIGHT)
    best = {path: int(row.argmax()) for path, row in rows.items()}
    return Record(
        precision="fp32",
        predictions={path: (LABELS[best[path]], float(row[best[path]])) for path, row in rows.items()},
    )


def judge(rows: dict[str, NDArray[np.float64]], record: Record) -> dict[str, object]:
    items = [Item(path=path, label=None, log_probabilities=row) for path, row in rows.items()]
    return compare(tabulate(items, LABELS, recorded=record.predicted), record)


@pytest.mark.real_images
@pytest.mark.parametrize("threads", [pytest.param(1, id="the same"), pytest.param(2, id="other threads")])
def test_healthy_server_is_silent(files: dict[str, Path], recorded: Record, threads: int) -> None:
    comparison = judge(serve(files, RIGHT, threads=threads), recorded)

    assert comparison["items_compared"] == len(files) == 150
    assert comparison["alarm"] is False and alarm_words(comparison) == ""


@pytest.mark.real_images
@pytest.mark.parametrize(
    ("preprocess", "spoil"),
    [
        pytest.param(RIGHT, lambda pixels: pixels[..., ::-1].copy(), id="BGR for RGB"),
        pytest.param(replace(RIGHT, mean=(0.5, 0.5, 0.5)), lambda pixels: pixels, id="wrong mean"),
        pytest.param(replace(RIGHT, resize=64), lambda pixels: pixels, id="wrong resize"),
        pytest.param(
            replace(RIGHT, interpolation="bicubic"), lambda pixels: pixels, id="wrong interpolation"
        ),
    ],
)
def test_preprocessing_bug_is_caught_with_the_affected_share(
    files: dict[str, Path], recorded: Record, preprocess: Preprocess, spoil: Callable[[Pixels], Pixels]
) -> None:
    pixels = {path: read_pixels(file, RIGHT) for path, file in files.items()}
    touched = {
        path
        for path in files
        if preprocess.mean != RIGHT.mean
        or not np.array_equal(pixels[path], spoil(read_pixels(files[path], preprocess)))
    }

    comparison = judge(serve(files, preprocess, spoil), recorded)

    affected = comparison["affected"]
    assert isinstance(affected, dict) and comparison["alarm"] is True
    assert 0.95 * len(touched) <= affected["correct"] <= len(touched)
    assert f"{affected['correct']} of 150 answers" in alarm_words(comparison)


@pytest.mark.real_images
def test_bug_in_a_few_images_is_caught_with_their_number(files: dict[str, Path], recorded: Record) -> None:
    rows, few = serve(files, RIGHT), dict(list(files.items())[:7])

    comparison = judge(rows | serve(few, RIGHT, lambda pixels: pixels[:, ::-1].copy() // 2), recorded)

    affected = comparison["affected"]
    assert isinstance(affected, dict) and affected["correct"] == 7
