"""What is tried next: no value twice, none lost when the search is opened again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from local.platform import LocalError
from local.tuning_search import Search, Suggestion
from tests.unit.tuning.searches import make_results, make_trial
from training.recipe_tuning import CategoricalRange, ContinuousRange, IntegerRange, Tuning

RATES = ContinuousRange(type="continuous", low=0.001, high=0.1, scale="logarithmic")
BATCHES = CategoricalRange(type="categorical", values=(16, 64))
EPOCHS = IntegerRange(type="integer", low=2, high=4)
SPACE = {"learning_rate": RATES, "batch_size": BATCHES, "epochs": EPOCHS}


def open_search(file: Path, *, seed: int = 0, **changes: Any) -> Search:
    """A search in `file`, new or as it was left."""
    values = {"objective": "validation_top1_accuracy", "direction": "maximize", "ranges": SPACE, **changes}
    return Search(file, Tuning(**values), max_epochs=9, seed=seed)


def run_one(search: Search, values: dict[int, float]) -> tuple[Suggestion, str]:
    """A trial that prints these values and is scored with the last."""
    suggestion = search.ask()
    assert suggestion
    search.begin(suggestion.number)
    reason = search.report(suggestion.number, values)
    search.complete(suggestion.number, values[max(values)])
    return suggestion, reason


def test_killed_search_knows_what_ended_and_what_ran(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db")
    ended, _ = run_one(search, {1: 0.5, 2: 0.6})
    running = search.ask()
    assert running
    search.begin(running.number)
    search.report(running.number, {1: 0.4})

    again = open_search(tmp_path / "s.db")

    assert again.unfinished() == [running]
    first, second = again.begun()
    assert (first.state, first.objective, first.parameters) == ("completed", 0.6, ended.parameters)
    assert (second.state, second.position, again.count) == ("running", 2, 2)
    again.report(running.number, {1: 0.4, 2: 0.7})  # the first epoch is known already
    again.complete(running.number, 0.7)
    assert again.begun()[1].objective == 0.7


@pytest.mark.parametrize("strategy", ["Random", "Bayesian", "Hyperband"])
def test_reopened_search_draws_other_values(strategy: str, tmp_path: Path) -> None:
    first, _ = run_one(open_search(tmp_path / "s.db", strategy=strategy), {1: 0.5})

    second, _ = run_one(open_search(tmp_path / "s.db", strategy=strategy), {1: 0.5})

    assert first.parameters != second.parameters


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_small_space_is_tried_once_and_then_it_is_over(strategy: str, tmp_path: Path) -> None:
    space = {"batch_size": BATCHES, "epochs": dataclasses.replace(EPOCHS, high=3)}
    search = open_search(tmp_path / "s.db", strategy=strategy, ranges=space)

    tried = [run_one(search, {1: 0.5})[0].parameters for _ in range(4)]

    assert search.ask() is None
    assert len({tuple(parameters.items()) for parameters in tried}) == 4
    assert [fact.position for fact in search.begun()] == [1, 2, 3, 4]


def test_grid_tries_every_combination_in_order_over_interruptions(tmp_path: Path) -> None:
    rates = CategoricalRange(type="categorical", values=(0.1, 0.2))
    grid: dict[str, Any] = {
        "strategy": "Grid",
        "max_jobs": 4,
        "ranges": {"learning_rate": rates, "batch_size": BATCHES},
    }

    tried = [run_one(open_search(tmp_path / "s.db", **grid), {1: 0.5})[0].parameters for _ in range(4)]

    assert tried == [
        {"learning_rate": rate, "batch_size": batch} for rate in (0.1, 0.2) for batch in (16, 64)
    ]
    assert open_search(tmp_path / "s.db", **grid).ask() is None


def test_value_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db", ranges={"batch_size": BATCHES}, strategy="Random")
    for _ in range(2):
        suggestion = search.ask()
        assert suggestion
        search.begin(suggestion.number)
        search.fail(suggestion.number, "out of memory")

    assert search.ask() is None
    assert [(fact.state, fact.reason) for fact in search.begun()] == [("failed", "out of memory")] * 2


def test_bad_trial_is_stopped_by_the_median_rule_and_keeps_its_score(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db", early_stopping="Auto")
    assert run_one(search, {1: 0.5, 2: 0.7})[1] == ""
    suggestion = search.ask()
    assert suggestion
    search.begin(suggestion.number)

    assert search.report(suggestion.number, {1: 0.6}) == ""
    reason = search.report(suggestion.number, {1: 0.6, 2: 0.55})
    search.set_reason(suggestion.number, reason)
    search.stop(suggestion.number)

    assert "after epoch 2" in reason and "0.6000" in reason
    fact = search.begun()[1]
    assert (fact.state, fact.objective, fact.reason) == ("stopped", 0.55, reason)


def test_hyperband_stops_the_worse_ones(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db", strategy="Hyperband")

    reasons = [run_one(search, {epoch: 1 / (trial + 1) for epoch in range(1, 10)})[1] for trial in range(8)]

    assert reasons[0] == "" and any("Hyperband" in reason for reason in reasons)


def test_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db")
    search.check_same({"data": "a", "ranges": {"epochs": {"low": 1}}})
    search.check_same({"data": "a", "ranges": {"epochs": {"low": 1}}})

    with pytest.raises(LocalError, match="holds another search: data was 'a' and is 'b'"):
        open_search(tmp_path / "s.db").check_same({"data": "b", "ranges": {"epochs": {"low": 1}}})


def test_earlier_search_is_learnt_from_once_where_it_fits(tmp_path: Path) -> None:
    parent = make_results()
    elsewhere = make_trial(9, 0.9, parameters={"learning_rate": 7.0, "batch_size": 16, "epochs": 3})
    other = make_trial(10, 0.9, parameters={"momentum": 0.5})
    parent = dataclasses.replace(parent, trials=(*parent.trials, elsewhere, other))
    search = open_search(tmp_path / "s.db")

    assert search.learn_from(parent) == 5  # seven, of which one failed and one was stopped
    assert search.learn_from(parent) == 0
    assert search.count == 0 and search.begun() == []
    assert search.ask() is not None
    with pytest.raises(LocalError, match="looked for validation_loss"):
        search.learn_from(dataclasses.replace(parent, objective="validation_loss"))


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    search = open_search(tmp_path / "s.db")
    suggestion = search.ask()
    assert suggestion
    search.begin(suggestion.number)
    search.add_seconds(suggestion.number, 2.0)
    search.seconds = 5.0

    again = open_search(tmp_path / "s.db")
    again.unfinished()
    again.add_seconds(suggestion.number, 1.5)

    assert again.seconds == 5.0 and again.begun()[0].seconds == 3.5
