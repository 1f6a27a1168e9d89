"""abstain=RISK: calibrated answers that say when they are not worth having."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

from artifact.bundle import open_bundle, write_manifest
from artifact.calibration import Calibration
from artifact.looks import LEAST_IMAGES, build_looks
from artifact.preprocess import decode_pixels
from serving.handler import Predictor, model_fn, respond
from serving.messages import Query
from serving.telemetry import WatchedPredictor
from tests.bundles import encode_picture, make_tiny_bundle

PNG = encode_picture("PNG")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Twice as sure as the network, and used to pictures like the drawn ones."""
    directory = make_tiny_bundle(tmp_path_factory.mktemp("abstaining") / "model")
    manifest = open_bundle(directory).manifest
    usual = [
        decode_pixels(encode_picture("PNG", seed=seed), manifest.preprocess) for seed in range(LEAST_IMAGES)
    ]
    calibration = Calibration(temperature=0.5, curve=((0.0, 0.4), (0.999, 0.01)))
    write_manifest(
        directory,
        dataclasses.replace(manifest, calibration=calibration, looks=build_looks(np.stack(usual))),
    )
    return WatchedPredictor(model_fn(directory), None)


def ask(predictor: Predictor, attributes: str, body: bytes = PNG, accept: str | None = None) -> object:
    answer = respond(Query(body, None, accept, attributes), predictor)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_probabilities_are_calibrated_and_ranked(calibrated: Predictor) -> None:
    raw = np.array(json.loads(respond(Query(PNG), calibrated).body)[0])

    told = ask(calibrated, "abstain=0.5,top=3")

    assert isinstance(told, dict)
    expected = np.exp(2 * raw) / np.exp(2 * raw).sum()
    probabilities = [row["probability"] for row in told["predictions"]]
    assert probabilities == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


@pytest.mark.parametrize(
    ("risk", "abstains", "reason"), [("0.5", False, None), ("0.1", True, "unsure"), ("0.001", True, "unsure")]
)
def test_answer_below_the_confidence_of_its_risk_abstains(
    calibrated: Predictor, risk: str, abstains: bool, reason: str | None
) -> None:
    told = ask(calibrated, f"abstain={risk}")

    assert isinstance(told, dict)
    assert (told["abstain"], told["reason"]) == (abstains, reason)
    assert 0.0 <= told["out_of_distribution"] < 0.99


def test_picture_unlike_all_others_is_out_of_distribution(calibrated: Predictor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, noise, allow_pickle=False)

    told = ask(calibrated, "abstain=0.5", buffer.getvalue())

    assert isinstance(told, dict)
    assert (told["abstain"], told["reason"]) == (True, "out_of_distribution")


def test_many_pictures_are_judged_each_and_a_bad_one_keeps_its_error(calibrated: Predictor) -> None:
    good, bad = (base64.b64encode(body).decode() for body in (PNG, b"hello"))
    body = json.dumps({"instances": [good, bad, good]}).encode()

    answer = respond(Query(body, "application/json", None, "abstain=0.5"), calibrated)

    first, second, third = json.loads(answer.body)
    assert set(second) == {"error"}
    assert first == third and first["abstain"] is False


@pytest.mark.parametrize(
    ("attributes", "accept", "status", "code"),
    [
        pytest.param("abstain=1", None, 400, "bad_request", id="1"),
        pytest.param("abstain=0", None, 400, "bad_request", id="0"),
        pytest.param("abstain=nan", None, 400, "bad_request", id="nan"),
        pytest.param("abstain=yes", None, 400, "bad_request", id="word"),
        pytest.param("abstain=0.1", "text/csv", 400, "bad_request", id="csv"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    calibrated: Predictor, attributes: str, accept: str | None, status: int, code: str
) -> None:
    answer = respond(Query(PNG, None, accept, attributes), calibrated)

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)


def test_bad_picture_alone_is_refused_as_ever(calibrated: Predictor) -> None:
    assert respond(Query(b"hello", None, None, "abstain=0.1"), calibrated).status == 400


def test_artifact_without_calibration_says_so(predictor: Predictor) -> None:
    answer = respond(Query(PNG, None, None, "abstain=0.1"), predictor)

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (422, "not_calibrated")


def test_without_asking_the_answer_is_the_networks_own(calibrated: Predictor, tmp_path: Path) -> None:
    untouched = model_fn(make_tiny_bundle(tmp_path / "model"))

    for attributes in (None, "top=3"):
        query = Query(PNG, custom_attributes=attributes)
        assert respond(query, calibrated).body == respond(query, untouched).body
