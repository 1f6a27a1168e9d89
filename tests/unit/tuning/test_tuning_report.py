"""The page of a search, and the board in the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.tuning.searches import RANGES, make_results, make_trial
from tuning.importance import estimate_importances
from tuning.leaderboard import Lines, build_table
from tuning.report import saved_epochs, write_report
from tuning.results import Results
from tuning.words import format_duration


def page_of(results: Results, folder: Path) -> str:
    """report.html, which a parser has read to its end."""
    write_report(results, folder / "report.html")
    page = (folder / "report.html").read_text()
    HTMLParser().feed(page)
    return page


def test_page_shows_every_trial_chart_and_reason(tmp_path: Path) -> None:
    page = page_of(make_results(), tmp_path)

    assert page.count("<svg") == 7  # history, curves, coordinates, importance and three slices
    assert "93.00 %" in page and "learning_rate 0.016" in page
    assert "The training loss is &lt;nan&gt;." in page and "0.55 after epoch 1" in page
    assert "make train RECIPE=best.toml" in page
    assert not re.search(r"(src|href)=.?https?:|@import|url\((?!#)", page)


def test_page_of_a_paid_search_says_what_it_cost(tmp_path: Path) -> None:
    page = page_of(make_results(dollars_per_hour=6.0, place="SageMaker"), tmp_path)

    assert "0.70 $" in page and "0.10 $" in page  # 7 trials of a minute, and each


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(make_results(trials=()), id="no-trial"),
        pytest.param(make_results(trials=(make_trial(1, None, curve=()),)), id="all-failed"),
        pytest.param(make_results(trials=(make_trial(1, 0.5),)), id="one"),
        pytest.param(make_results(trials=(make_trial(1, 0.5), make_trial(2, 0.5))), id="equal"),
        pytest.param(make_results(trials=(make_trial(1, None, state="running", curve=()),)), id="running"),
        pytest.param(
            make_results(
                ranges={"architecture": {"type": "categorical", "values": ["$a_b$", "<c>"]}},
                trials=tuple(
                    make_trial(number, 0.1 * number, parameters={"architecture": name})
                    for number, name in enumerate(("$a_b$", "<c>", "$a_b$", "<c>"), start=1)
                ),
            ),
            id="text-that-is-no-formula",
        ),
    ],
)
def test_page_of_any_search_is_written(results: Results, tmp_path: Path) -> None:
    assert "What was searched" in page_of(results, tmp_path)


def test_importance_finds_what_decides() -> None:
    trials = tuple(
        make_trial(
            number,
            0.9 - abs(number % 8 - 4) / 10,
            parameters={
                "learning_rate": 0.001 * 1.7 ** (number % 8),
                "batch_size": (16, 64)[number // 8],
                "epochs": 3,
            },
        )
        for number in range(16)
    )

    shares = estimate_importances(make_results(trials=trials))

    assert next(iter(shares)) == "learning_rate" and shares["learning_rate"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert estimate_importances(make_results(trials=trials[:3])) == {}


def test_saved_epochs_count_what_was_not_run() -> None:
    assert saved_epochs(make_results()) == (2, 18)


def test_lines_tell_of_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    board = Lines()
    running = make_results(trials=(make_trial(1, None, state="running", reason=""),))
    ended = make_results(trials=(make_trial(1, 0.5),))

    for results in (running, running, ended, ended):
        board(results)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "trial 1/7 running: learning_rate=0.001 batch_size=64 epochs=3"
    assert lines[1:] == [
        "trial 1/7 completed validation_top1_accuracy=0.5000 in 1 min 0 s, the best so far: "
        "learning_rate=0.001 batch_size=64 epochs=3"
    ]


def test_table_has_the_best_first_and_no_more_rows_than_fit() -> None:
    many = tuple(make_trial(number, number / 100) for number in range(1, 31))

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(build_table(make_results(trials=many)))

    lines = console.export_text().splitlines()
    assert lines[2].split()[0] == "30" and "and 10 more" in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (1860, "31 min"), (12000, "3 h 20 min")],
)
def test_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_logarithmic_and_single_valued_ranges_are_drawn(tmp_path: Path) -> None:
    single = {**RANGES, "batch_size": {"type": "categorical", "values": [64]}}
    trials = tuple(
        replace(trial, parameters={**trial.parameters, "batch_size": 64}) for trial in make_results().trials
    )

    assert "<svg" in page_of(make_results(ranges=single, trials=trials), tmp_path)
