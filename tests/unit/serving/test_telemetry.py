"""What a process that predicts notes down: stages and drift bins, and nothing outside a request."""

from __future__ import annotations

import io
import marshal
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact.baseline import SIGNALS, UNKNOWN, Baseline, build_baseline
from artifact.preprocess import Preprocess, decode_pixels
from serving.handler import Predictor, respond
from serving.messages import Query
from serving.metrics import Metrics, Model
from serving.pictures import decode_picture
from serving.telemetry import WatchedPredictor, collect, note_size, timed
from tests.bundles import encode_picture

SIZE = (60, 40)


class FakePredictor:
    """Answers with the brightness: dark pictures are `night`."""

    labels: tuple[str, ...] = ("day", "night")
    preprocess = Preprocess(resize=16, crop=16)
    precision = "fp32"
    concurrency = 1
    max_batch = 1
    device = "cpu"

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        day = np.clip(pixels.mean(axis=(1, 2, 3)) / 255, 0.01, 0.99)
        return np.asarray(np.log(np.stack([day, 1 - day], axis=1)), dtype=np.float32)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """(40, 16, 16, 3)"""
    return np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def baseline(pixels: NDArray[np.uint8]) -> Baseline:
    return build_baseline(pixels, FakePredictor().predict(pixels), [SIZE] * len(pixels))


def test_stages_are_noted_in_order_with_their_seconds() -> None:
    with collect() as notes:
        with timed("decode"):
            time.sleep(0.01)
        with pytest.raises(ValueError), timed("infer"):
            raise ValueError

    (decode, decode_seconds), (infer, _) = notes.report().stages
    assert (decode, infer) == ("decode", "infer")
    assert 0.01 <= decode_seconds < 5


def test_nothing_is_noted_outside_a_request(baseline: Baseline, pixels: NDArray[np.uint8]) -> None:
    with collect() as notes:
        pass
    with timed("decode"):
        note_size(SIZE)
    WatchedPredictor(FakePredictor(), baseline).predict(pixels)

    assert notes.report() == ((), (), ())


def test_watched_predictor_answers_as_the_predictor_and_notes_each_picture(
    baseline: Baseline, pixels: NDArray[np.uint8]
) -> None:
    watched = WatchedPredictor(FakePredictor(), baseline)

    with collect() as notes:
        answer = watched.predict(pixels)

    np.testing.assert_array_equal(answer, FakePredictor().predict(pixels))
    assert (watched.labels, watched.precision, watched.device) == (("day", "night"), "fp32", "cpu")
    report = notes.report()
    assert [stage for stage, _ in report.stages] == ["infer"]
    assert report.batches == ()  # for whoever put them together to note
    column = SIGNALS.index("brightness")
    counts = np.bincount([bins[column] for bins in report.pictures])
    assert tuple(counts) == baseline.histograms["brightness"].counts[: len(counts)]
    assert {bins[-1] for bins in report.pictures} == {UNKNOWN}


def test_noted_sizes_count_where_there_is_one_for_each_picture(
    baseline: Baseline, pixels: NDArray[np.uint8]
) -> None:
    watched = WatchedPredictor(FakePredictor(), baseline)

    with collect() as notes:
        note_size(SIZE)
        watched.predict(pixels[:1])
        note_size(SIZE)
        watched.predict(pixels[:2])

    assert notes.report().pictures == ()
    aspects = [bins[-1] for bins in watched.measure_held()]
    known = np.argmax(baseline.histograms["aspect"].counts)
    assert aspects == [known, UNKNOWN, UNKNOWN]


def test_single_pictures_are_measured_eight_at_a_time(baseline: Baseline, pixels: NDArray[np.uint8]) -> None:
    watched = WatchedPredictor(FakePredictor(), baseline)
    with collect() as together:
        watched.predict(pixels[:20])

    reports = []
    for one in range(20):
        with collect() as notes:
            watched.predict(pixels[one : one + 1])
        reports.append(notes.report().pictures)
    left = watched.measure_held()

    assert [len(pictures) for pictures in reports] == [8 if one in (7, 15) else 0 for one in range(20)]
    assert len(left) == 4
    assert not watched.is_holding
    assert (*reports[7], *reports[15], *left) == together.report().pictures


def test_predictor_of_several_threads_measures_at_once(baseline: Baseline, pixels: NDArray[np.uint8]) -> None:
    predictor = FakePredictor()
    predictor.concurrency = 2
    with collect() as notes:
        WatchedPredictor(predictor, baseline).predict(pixels[:1])

    assert len(notes.report().pictures) == 1


def test_noted_size_is_that_of_the_picture_sent_and_not_of_its_reduced_decode() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "JPEG")

    with collect() as notes:
        decode_picture(buffer.getvalue(), FakePredictor.preprocess, max_pixels=400 * 300)

    assert notes.sizes == [(400, 300)]


def test_without_a_baseline_only_time_is_noted(pixels: NDArray[np.uint8]) -> None:
    with collect() as notes:
        WatchedPredictor(FakePredictor(), None).predict(pixels)

    assert [stage for stage, _ in notes.report().stages] == ["infer"]
    assert notes.report().pictures == ()


def test_answered_request_becomes_metrics(predictor: Predictor) -> None:
    pictures = [encode_picture("JPEG", seed=seed) for seed in range(120)]
    pixels = np.stack([decode_pixels(body, predictor.preprocess) for body in pictures])
    baseline = build_baseline(pixels, predictor.predict(pixels))
    watched = WatchedPredictor(predictor, baseline)
    metrics = Metrics()
    metrics.describe_model(Model("tiny", "fp32", "openvino", "3", ""), baseline.counts())

    for body in pictures * 2:
        with collect() as notes:
            answer = respond(Query(body, "image/jpeg"), watched)
        # As it arrives on the other side of a socket.
        report: Any = tuple(notes.report())
        metrics.record(*marshal.loads(marshal.dumps(report)))
        metrics.count_request("/invocations", answer.status)

    body, content_type = metrics.render()
    text = body.decode()
    assert content_type.startswith("text/plain; version=0.0.4")
    assert 'kennel_requests_total{route="/invocations",status="200"} 240.0' in text
    assert 'kennel_stage_seconds_count{stage="infer"} 240.0' in text
    assert 'kennel_drift_psi{signal="brightness"} 0.0' in text
    assert "kennel_drift_alert 0.0" in text
