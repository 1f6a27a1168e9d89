"""Where a heat map can be drawn from, and where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from artifact.bundle import read_bundle
from artifact.network import Cnn, PixelNetwork
from artifact.preprocess import Preprocess
from tests.bundles import encode_picture, make_cnn_bundle
from training.export import Trained, export
from training.graph import build_graph, has_feature_map, logits_only

PREPROCESS = Preprocess(resize=32, crop=32)


class Gate(nn.Module):
    """Squeeze and excitation: an average inside the network, round which the features go."""

    def __init__(self) -> None:
        super().__init__()
        self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scaled by what their own average says."""
        gated: torch.Tensor = features * self.excite(features)
        return gated


def stem(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), *layers)


AVERAGE = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param(Cnn(3), (256, 2, 2), id="cnn"),
        pytest.param(stem(*AVERAGE, nn.Linear(8, 3)), (8, 8, 8), id="linear head"),
        pytest.param(
            stem(*AVERAGE, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), (8, 8, 8), id="hidden layer"
        ),
        pytest.param(stem(*AVERAGE, nn.LayerNorm(8), nn.Linear(8, 3)), (8, 8, 8), id="norm in the head"),
        pytest.param(stem(Gate(), *AVERAGE, nn.Linear(8, 3)), (8, 8, 8), id="gate before it"),
        pytest.param(stem(nn.Flatten(), nn.Linear(512, 3)), None, id="no average"),
        pytest.param(
            stem(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)), None, id="average over parts"
        ),
        pytest.param(stem(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 3)), None, id="maximum"),
        pytest.param(stem(Gate(), nn.Flatten(), nn.Linear(512, 3)), None, id="way round the average"),
    ],
)
def test_feature_map_is_what_is_averaged_before_the_head(
    network: nn.Module, expected: tuple[int, int, int] | None
) -> None:
    graph = build_graph(PixelNetwork(network, PREPROCESS).eval(), PREPROCESS)

    assert has_feature_map(graph) == (expected is not None)
    if expected is not None:
        shape = graph.output("features").get_partial_shape()
        assert tuple(side.get_length() for side in list(shape)[1:]) == expected


def test_graph_that_predicts_has_one_output_and_the_same_answers() -> None:
    graph = build_graph(PixelNetwork(Cnn(3), PREPROCESS).eval(), PREPROCESS)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)

    one, both = (openvino.Core().compile_model(part, "CPU") for part in (logits_only(graph), graph))

    assert (len(one.outputs), len(both.outputs)) == (1, 2)
    np.testing.assert_allclose(one(pixels)[0], both(pixels)[0], atol=1e-5)


def test_manifest_says_whether_there_are_explanations(tmp_path: Path) -> None:
    flat = Trained(
        network=PixelNetwork(stem(nn.Flatten(), nn.Linear(512, 2)), PREPROCESS),
        architecture="flat",
        labels=("a", "b"),
        preprocess=PREPROCESS,
        golden_body=encode_picture("PNG"),
    )

    export(flat, tmp_path / "flat")

    assert read_bundle(tmp_path / "flat").manifest.explanation == ""
    assert read_bundle(make_cnn_bundle(tmp_path / "cnn")).manifest.explanation == "cam"
