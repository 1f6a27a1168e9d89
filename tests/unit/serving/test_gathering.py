"""Requests answered together: one prediction for all, each its own rows, and nobody's fault but one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

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


def run(gathering: Gathering, *requests: Callable[[], None]) -> None:
    """All at hand from the start."""
    gathering.run_requests(requests[0], coming(requests[1:]))


def coming(requests: Iterable[Callable[[], None]]) -> Callable[[int], Iterator[Callable[[], None]]]:
    """As `take`: the next ones of these."""
    left = iter(requests)
    return lambda most: itertools.islice(left, most)


def test_requests_at_hand_are_one_prediction_and_get_their_own_rows(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    requests = {"one": (1,), "two": (2, 3), "three": (4,)}
    run(gathering, *(asking(gathering, answers, name, values) for name, values in requests.items()))

    assert engine.sizes == [4]
    assert answers == {"one": [1], "two": [2, 3], "three": [4]}


def test_request_that_predicts_again_meets_those_that_do_too(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    run(
        gathering,
        asking(gathering, answers, "long", (1,), (2,), (3,)),
        asking(gathering, answers, "short", (9,), (8,)),
    )

    assert engine.sizes == [2, 2, 1]
    assert answers == {"long": [1, 2, 3], "short": [9, 8]}


def test_requests_that_come_beside_a_long_one_are_answered_before_it_ends(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}
    ended: list[str] = []

    def named(name: str, *calls: tuple[int, ...]) -> Callable[[], None]:
        def request() -> None:
            asking(gathering, answers, name, *calls)()
            ended.append(name)

        return request

    def take(most: int) -> Iterator[Callable[[], None]]:
        if len(engine.sizes) == 3:  # by then the long one has had three predictions of its nine
            yield from [named("one", (1,)), named("two", (2,))][:most]

    gathering.run_requests(named("long", *[(5, 6, 7, 8)] * 9), take)

    assert ended == ["one", "two", "long"]
    assert engine.sizes == [4] * 4 + [2] + [4] * 5
    assert answers == {"long": [5, 6, 7, 8] * 9, "one": [1], "two": [2]}


def test_engine_gets_no_more_pictures_at_once_than_it_takes(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    run(gathering, *(asking(gathering, answers, str(size), (size,) * size) for size in (3, 2, 2, 1, 4)))

    assert engine.sizes == [3, 4, 1, 4]
    assert answers == {str(size): [size] * size for size in (1, 2, 3, 4)} | {"2": [2] * 4}


def test_picture_the_engine_fails_on_fails_its_own_request_alone(engine: Engine) -> None:
    gathering = Gathering(engine)
    answers: dict[str, list[float]] = {}

    def broken() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            gathering.predict(pictures(BROKEN))
        answers["broken"] = []

    before, after = (
        asking(gathering, answers, name, (at,)) for at, name in enumerate(("before", "after"), 1)
    )
    run(gathering, before, broken, after)

    assert answers == {"before": [1], "broken": [], "after": [2]}


def test_what_a_request_raises_is_raised_where_they_are_run(engine: Engine) -> None:
    def leave() -> None:
        raise OSError("the other side is gone")

    with pytest.raises(OSError, match="is gone"):
        run(Gathering(engine), leave)


def test_batch_is_noted_once_by_one_of_its_requests(engine: Engine) -> None:
    gathering = Gathering(engine)
    noted: list[tuple[int, ...]] = []

    def request() -> None:
        with collect() as notes:
            gathering.predict(pictures(1))
        noted.append(tuple(notes.report().batches))

    run(gathering, request, request, request)

    assert noted == [(3,), (), ()]


def test_other_callers_have_the_predictor_itself(engine: Engine) -> None:
    gathering = Gathering(engine)

    assert gathering.predict(pictures(7)).tolist() == [[7]]
    assert (gathering.max_batch, gathering.labels) == (4, ("mean",))
