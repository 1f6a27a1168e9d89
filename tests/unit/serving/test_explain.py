"""Heat maps: what they are made of, how they are asked for, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact.bundle import open_bundle
from artifact.predictions import log_softmax
from artifact.preprocess import decode_pixels
from serving.codec import wants_explanation
from serving.engine_openvino import OpenVinoExplainer
from serving.engine_torch import TorchExplainer
from serving.errors import NotExplainable
from serving.explain import can_explain
from serving.handler import load_explainer, model_fn, respond
from serving.heatmap import draw_overlay, normalise
from serving.messages import Query
from tests.bundles import LABELS, encode_picture, make_cnn_bundle

PNG = encode_picture("PNG")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cnn_bundle(tmp_path_factory.mktemp("explain") / "model")


@pytest.fixture(scope="module")
def explainer(bundle: Path) -> OpenVinoExplainer:
    loaded = load_explainer(bundle)
    assert isinstance(loaded, OpenVinoExplainer)
    return loaded


@pytest.fixture(scope="module")
def pixels(explainer: OpenVinoExplainer) -> NDArray[np.uint8]:
    return decode_pixels(PNG, explainer.preprocess)


def test_places_average_to_the_answer_of_the_process_that_predicts(
    bundle: Path, explainer: OpenVinoExplainer, pixels: NDArray[np.uint8]
) -> None:
    predicted = model_fn(bundle).predict(pixels[np.newaxis])[0]

    log_probabilities, maps = explainer.explain(pixels)

    assert maps.shape == (len(LABELS), 4, 4) and maps.std() > 1e-3
    np.testing.assert_allclose(log_probabilities, predicted, atol=1e-5)
    np.testing.assert_allclose(log_softmax(maps.mean(axis=(1, 2))), predicted, atol=1e-4)


def test_torch_draws_the_same_map(
    bundle: Path, explainer: OpenVinoExplainer, pixels: NDArray[np.uint8]
) -> None:
    torch_explainer = TorchExplainer(open_bundle(bundle), precision="fp32", num_threads=1)

    for found, expected in zip(torch_explainer.explain(pixels), explainer.explain(pixels), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert can_explain(torch_explainer) and torch_explainer.concurrency == 1


def test_json_holds_labels_map_and_picture(explainer: OpenVinoExplainer) -> None:
    answer = respond(Query(PNG, custom_attributes="explain=cam,top=2"), explainer)

    told = json.loads(answer.body)
    heat = np.array(told["explanation"]["map"])
    assert [len(told["predictions"]), told["explanation"]["method"]] == [2, "cam"]
    assert told["explanation"]["label"] == told["predictions"][0]["label"]
    assert (heat.shape, heat.min(), heat.max()) == ((4, 4), 0.0, 1.0)
    with Image.open(io.BytesIO(base64.b64decode(told["explanation"]["image"]))) as image:
        assert (image.format, image.size) == ("PNG", (224, 224))


def test_png_alone_where_that_is_accepted(explainer: OpenVinoExplainer) -> None:
    answer = respond(Query(PNG, accept="image/png"), explainer)

    assert answer.headers["Content-Type"] == "image/png"
    assert answer.body.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param(Query(PNG, custom_attributes="explain=shap"), 400, id="unknown method"),
        pytest.param(Query(PNG, accept="text/csv", custom_attributes="explain=cam"), 400, id="csv"),
        pytest.param(
            Query(
                json.dumps({"instances": [base64.b64encode(PNG).decode()] * 2}).encode(),
                "application/json",
                custom_attributes="explain=cam",
            ),
            400,
            id="two pictures",
        ),
        pytest.param(Query(b"hello", custom_attributes="explain=cam"), 400, id="no picture"),
        pytest.param(Query(b"{}", "text/html", custom_attributes="explain=cam"), 415, id="content type"),
    ],
)
def test_what_cannot_be_explained_is_refused(explainer: OpenVinoExplainer, query: Query, status: int) -> None:
    assert respond(query, explainer).status == status


@pytest.mark.parametrize(
    ("accept", "attributes", "expected"),
    [
        pytest.param(None, None, False, id="nothing"),
        pytest.param("*/*", "top=5", False, id="a prediction"),
        pytest.param(None, "explain=cam", True, id="attribute"),
        pytest.param(None, "trace=explained", False, id="another attribute"),
        pytest.param("image/png", None, True, id="accept"),
        pytest.param("application/json, image/png", None, False, id="json first"),
        pytest.param("application/json;q=0.5, image/png", None, True, id="png liked better"),
        pytest.param("text/html, image/webp, */*", None, False, id="a browser"),
    ],
)
def test_only_who_asks_gets_an_explanation(
    accept: str | None, attributes: str | None, expected: bool
) -> None:
    assert wants_explanation(accept, attributes, method="cam") == expected


def test_network_without_maps_says_so() -> None:
    with pytest.raises(NotExplainable) as refusal:
        wants_explanation(None, "explain=cam", method="")

    assert refusal.value.status == 422
    assert not wants_explanation("image/png", None, method="")  # a 406, as of any type that is not offered


def test_overlay_leaves_what_is_cold_as_it_is() -> None:
    grey = np.full((224, 224, 3), 128, dtype=np.uint8)
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:, 4:] = 1.0

    with Image.open(io.BytesIO(draw_overlay(grey, heat))) as image:
        left, right = image.getpixel((10, 100)), image.getpixel((213, 100))

    assert left == (128, 128, 128)
    assert right != left


def test_flat_map_is_cold_everywhere() -> None:
    assert not normalise(np.full((4, 4), 3.0, dtype=np.float32)).any()
