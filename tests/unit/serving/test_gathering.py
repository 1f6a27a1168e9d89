"""Requests answered together: one prediction for all, each its own rows, and nobody's fault but one's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.preprocess import Preprocess
from serving.gathering import Gathering
from serving.telemetry import collect

BROKEN = 255  # a picture of this alone is one the engine fails on


class Engine:
    """Answers with each picture's mean, and notes how many it had at once."""

    labels: tuple[str, ...] = ("mean",)
    preprocess = Preprocess(resize=4, crop=4)
    precision = "fp32"
    concurrency = 1
    max_batch = 4

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(pixels))
        if (pixels == BROKEN).all(axis=(1, 2, 3)).any():
            raise RuntimeError("broken")
        return np.asarray(pixels.mean(axis=(1, 2, 3))[:, np.newaxis], dtype=np.float32)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def pictures(*values: int) -> NDArray[np.uint8]:
    return np.repeat(np.array(values, np.uint8), 48).reshape(-1, 4, 4, 3)


def asking(
    gathering: Gathering, answers: dict[str, list[float]], name: str, *calls: tuple[int, ...]
) -> Callable[[], None]:
    """A request that predicts once for each of the calls, a picture for each value."""

    def request() -> None:
        for values in calls:
            answers.setdefault(name, []).extend(gathering.predict(pictures(*values))[:, 0].tolist())

    return request


def test_requests_at_hand_are_one_prediction_and_get_their_own_rows(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    requests = {"one": (1,), "two": (2, 3), "three": (4,)}
    gathering.run_requests([asking(gathering, answers, name, values) for name, values in requests.items()])

    assert engine.sizes == [4]
    assert answers == {"one": [1], "two": [2, 3], "three": [4]}


def test_request_that_predicts_again_meets_those_that_do_too(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    gathering.run_requests(
        [
            asking(gathering, answers, "long", (1,), (2,), (3,)),
            asking(gathering, answers, "short", (9,), (8,)),
        ]
    )

    assert engine.sizes == [2, 2, 1]
    assert answers == {"long": [1, 2, 3], "short": [9, 8]}


def test_picture_the_engine_fails_on_fails_its_own_request_alone(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    def broken() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            gathering.predict(pictures(BROKEN))
        answers["broken"] = []

    gathering.run_requests(
        [asking(gathering, answers, "before", (1,)), broken, asking(gathering, answers, "after", (2,))]
    )

    assert answers == {"before": [1], "broken": [], "after": [2]}


def test_what_a_request_raises_is_raised_where_they_are_run(engine: Engine) -> None:
    def leave() -> None:
        raise OSError("the other side is gone")

    with pytest.raises(OSError, match="is gone"):
        Gathering(engine).run_requests([leave])


def test_batch_is_noted_once_by_one_of_its_requests(engine: Engine) -> None:
    gathering = Gathering(engine)
    noted: list[tuple[int, ...]] = []

    def request() -> None:
        with collect() as notes:
            gathering.predict(pictures(1))
        noted.append(tuple(notes.report().batches))

    gathering.run_requests([request] * 3)

    assert noted == [(3,), (), ()]


def test_other_callers_have_the_predictor_itself(engine: Engine) -> None:
    gathering = Gathering(engine)

    assert gathering.predict(pictures(7)).tolist() == [[7]]
    assert (gathering.max_batch, gathering.labels) == (4, ("mean",))
