"""Attribution on a network that was trained on pictures of which it is known what matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.explain.explaining import Averages, choose_images, explain_picture, scale_map
from training.explain.methods import METHODS, Map, Question, hide
from training.explain.network import ExplainError, find_feature_layer

SIDE, SPOT = 64, 20
LABELS = ("blue", "red")
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)

Pixels = NDArray[np.uint8]


def draw_spot(draw: np.random.Generator, target: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """A gray, grainy ground with one spot, blue or red; and where the spot is."""
    pixels = draw.integers(90, 166, (SIDE, SIDE, 1)).repeat(3, axis=2).astype(np.uint8)
    top, left = draw.integers(0, SIDE - SPOT, 2)
    place = np.zeros((SIDE, SIDE), dtype=bool)
    place[top : top + SPOT, left : left + SPOT] = True
    pixels[place] = (220, 40, 40) if target else (40, 40, 220)
    return pixels, place


@pytest.fixture(scope="module")
def network() -> PixelNetwork:
    """Trained to tell blue spots from red ones, for two seconds."""
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 2, 128)
    pixels = torch.from_numpy(np.stack([draw_spot(draw, target)[0] for target in targets]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = PixelNetwork(build_network("cnn", 2), PREPROCESS)
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    for _ in range(5):
        for batch in torch.split(torch.arange(128), 32):
            loss = nn.functional.cross_entropy(trained(pixels[batch]), torch.from_numpy(targets)[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return trained.eval()


def ask(network: PixelNetwork, pixels: Pixels, target: int) -> Question:
    images = network.normalise(torch.from_numpy(pixels)[None])
    return Question(network=network.network, images=images, hidden=hide(images), target=target)


@pytest.mark.parametrize("method", METHODS)
def test_spot_matters_more_than_the_ground(network: PixelNetwork, method: str) -> None:
    draw = np.random.default_rng(1)

    for target in (0, 1, 0, 1):
        pixels, place = draw_spot(draw, target)
        scaled = scale_map(METHODS[method](ask(network, pixels, target)))
        assert scaled[place].mean() > 2 * scaled[~place].mean(), (method, target)


@pytest.mark.parametrize("method", METHODS)
def test_hiding_what_a_map_marks_costs_more_than_hiding_at_random(network: PixelNetwork, method: str) -> None:
    draw = np.random.default_rng(2)

    for target in (0, 1):
        pixels, _ = draw_spot(draw, target)
        explanation, _ = explain_picture(
            network, pixels, labels=LABELS, name=f"{LABELS[target]}/a.png", methods=[method], seed=0
        )
        score = explanation.scores[method]
        assert (explanation.label, explanation.predicted) == (LABELS[target], LABELS[target])
        assert score.without_top < explanation.without_random
        assert score.deletion < score.insertion


def test_same_seed_gives_the_same_map_and_leaves_torch_generator_alone(network: PixelNetwork) -> None:
    pixels, _ = draw_spot(np.random.default_rng(3), 0)
    before = torch.get_rng_state()

    first, second = (METHODS["shap"](ask(network, pixels, 0)) for _ in range(2))

    assert np.array_equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "architecture", ["cnn", "resnet18", "densenet121", "vgg11_bn", "mobilenet_v3_small", "swin_t"]
)
def test_feature_layer_is_found_and_explained_in(architecture: str) -> None:
    torch.manual_seed(0)
    network = PixelNetwork(build_network(architecture, 3), PREPROCESS).eval()
    pixels, _ = draw_spot(np.random.default_rng(0), 0)

    attribution = METHODS["cam"](ask(network, pixels, 1))

    assert attribution.shape == (SIDE, SIDE)
    assert np.isfinite(attribution).all() and np.ptp(attribution) > 0


def test_cam_of_a_linear_head_is_the_feature_map_times_its_weights(network: PixelNetwork) -> None:
    pixels, _ = draw_spot(np.random.default_rng(4), 1)
    question = ask(network, pixels, 1)
    features: list[torch.Tensor] = []
    layer = find_feature_layer(network.network, question.images)
    handle = layer.register_forward_hook(lambda module, given, output: features.append(output.detach()))
    network.network(question.images)
    handle.remove()

    weights = network.network.get_submodule("fc").weight[1]  # type: ignore[index]
    activation = torch.einsum("chw,c->hw", features[0][0], weights.detach())[None, None]
    large = nn.functional.interpolate(activation, (SIDE, SIDE), mode="bilinear")[0, 0].double().numpy()

    attribution = METHODS["cam"](question)
    scale = np.abs(large).max() / np.abs(attribution).max()
    assert np.allclose(attribution * scale, large, atol=1e-4 * np.abs(large).max())


def test_transformer_without_feature_map_is_refused_in_words() -> None:
    network = build_network("vit_b_16", 2).eval()

    with pytest.raises(ExplainError, match="leave cam out of --methods"):
        find_feature_layer(network, torch.zeros(1, 3, 224, 224))


def test_averages_are_per_predicted_label() -> None:
    averages = Averages(side=4, methods=["cam"])
    maps: dict[str, Map] = {"cam": np.eye(4)}
    for label in ("b", "a", "b"):
        averages.add(label, np.zeros((4, 4, 3), dtype=np.uint8), maps)

    drawn = averages.draw()

    assert [(average.label, average.count) for average in drawn] == [("a", 1), ("b", 2)]
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in drawn[1].thumbnails.values())


def test_few_pictures_are_taken_from_every_folder(tmp_path: Path) -> None:
    for label in ("cat", "dog", "newt"):
        for number in range(5):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{number}.png")

    chosen = [path.relative_to(tmp_path).as_posix() for path in choose_images(tmp_path, limit=4)]

    assert chosen == ["cat/0.png", "dog/0.png", "newt/0.png", "cat/1.png"]


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(ExplainError, match="holds no images"):
        choose_images(tmp_path, limit=1)


@pytest.mark.parametrize(
    ("attribution", "expected"),
    [
        pytest.param(np.full((2, 2), -1.0), np.zeros((2, 2)), id="nothing speaks for it"),
        pytest.param(np.array([[0.0, 2.0], [-1.0, 2.0]]), np.array([[0.0, 1.0], [0.0, 1.0]]), id="scaled"),
    ],
)
def test_map_is_scaled_from_0_to_1(attribution: Map, expected: Map) -> None:
    assert np.allclose(scale_map(attribution), expected)
