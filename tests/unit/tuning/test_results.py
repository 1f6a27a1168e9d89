"""Which trial is best, when to end, and the file that remembers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.tuning.searches import make_results, make_trial
from tuning.results import NAME, ResultsError, jobs_without_improvement, read_results, write_results


def test_best_is_the_best_that_completed() -> None:
    stopped = make_trial(8, 0.99, state="stopped")

    results = make_results(trials=(*make_results().trials, stopped))

    assert results.best and results.best.number == 5
    assert [trial.number for trial in results.ranked()] == [8, 5, 7, 2, 1, 3, 6]


def test_best_of_losses_is_the_lowest_and_of_equals_the_first() -> None:
    trials = (make_trial(1, 0.5), make_trial(2, 0.3), make_trial(3, 0.3))

    results = make_results(trials=trials, direction="minimize", objective="validation_loss")

    assert results.best and results.best.number == 2


def test_stopped_trial_is_best_where_none_completed() -> None:
    results = make_results(trials=(make_trial(1, None), make_trial(2, 0.4, state="stopped")))

    assert results.best and results.best.number == 2
    assert make_results(trials=()).best is None


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        pytest.param((0.5, 0.6, 0.7), 0, id="always-better"),
        pytest.param((0.7, 0.6, None, 0.705), 3, id="less-than-one-percent-is-none"),
        pytest.param((None, None), 0, id="nothing-to-compare-with"),
        pytest.param((0.5, 0.4, 0.8, 0.1), 1, id="since-the-last"),
    ],
)
def test_trials_without_improvement_are_counted_as_sagemaker_does(
    scores: tuple[float | None, ...], count: int
) -> None:
    trials = tuple(make_trial(number, score) for number, score in enumerate(scores, start=1))

    assert jobs_without_improvement(make_results(trials=trials)) == count


def test_file_gives_the_same_results_back(tmp_path: Path) -> None:
    write_results(make_results(), tmp_path / NAME)

    assert read_results(tmp_path) == make_results()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "holds no tuning results", id="json"),
        pytest.param("{}", "holds no tuning results", id="empty"),
        pytest.param('{"format_version": "2.0"}', "has format 2.0", id="newer"),
        pytest.param(None, "cannot be read", id="missing"),
    ],
)
def test_other_file_is_refused_by_name(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / NAME).write_text(text)

    with pytest.raises(ResultsError, match=message):
        read_results(tmp_path)


def test_newer_minor_format_with_unknown_keys_is_told(tmp_path: Path) -> None:
    write_results(make_results(), tmp_path / NAME)
    document = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**document, "surprise": 1}))

    with pytest.raises(ResultsError, match="surprise"):
        read_results(tmp_path)
