"""What a search shows in a terminal: a table that redraws itself, or without a terminal a line per event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tuning.results import Results, Trial
from tuning.words import format_duration, format_objective, format_value

Board: TypeAlias = Callable[[Results], None]

LINE_SECONDS = 10.0
MOST_ROWS = 20


@contextmanager
def open_board() -> Iterator[Board]:
    """A function to call with the results whenever they may have changed; it talks on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda results: live.update(build_table(results))


class Lines:
    """A line when a trial starts and when it ends, and every ten seconds how far the running ones are."""

    def __init__(self) -> None:
        self._seen: dict[int, str] = {}
        self._said = time.monotonic()

    def __call__(self, results: Results) -> None:
        """Say what is new since the last call."""
        for trial in results.trials:
            if self._seen.get(trial.number) != trial.state:
                self._seen[trial.number] = trial.state
                self._say(describe(trial, results))
        running = [trial for trial in results.trials if trial.state == "running" and trial.curve]
        if running and time.monotonic() - self._said >= LINE_SECONDS:
            self._say("; ".join(_how_far(trial, results) for trial in running))

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        print(text, file=sys.stderr, flush=True)


def describe(trial: Trial, results: Results) -> str:
    """One line: `trial 3/8 completed validation_loss=0.21 in 12 s, the best so far: learning_rate=0.02`"""
    values = " ".join(f"{name}={format_value(value)}" for name, value in trial.parameters.items())
    head = f"trial {trial.number}/{results.max_jobs} {trial.state}"
    if trial.state == "running":
        return f"{head}: {values}"
    score = f" {results.objective}={trial.objective:.4f}" if trial.objective is not None else ""
    best = ", the best so far" if trial is results.best else ""
    reason = f" ({trial.reason})" if trial.reason else ""
    return f"{head}{score} in {format_duration(trial.seconds)}{best}: {values}{reason}"


def build_table(results: Results) -> Table:
    """Best first, then what runs, then what failed."""
    ranked = results.ranked()
    rows = [*ranked, *(t for t in results.trials if t not in ranked and t.state == "running")]
    rows += [trial for trial in results.trials if trial not in rows]
    ended = sum(trial.state != "running" for trial in results.trials)
    title = f"{results.name}: {ended} of {results.max_jobs} trials, {format_duration(results.seconds)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column(results.objective, justify="right")
    for name in results.ranges:
        table.add_column(name, justify="right")
    for column in ("epochs", "time", ""):
        table.add_column(column, justify="right" if column else "left")
    best = results.best
    for trial in rows[:MOST_ROWS]:
        table.add_row(*_cells(trial, results), style="bold green" if trial is best else "")
    if len(rows) > MOST_ROWS:
        table.caption = f"and {len(rows) - MOST_ROWS} more"
    return table


def _cells(trial: Trial, results: Results) -> list[str]:
    value = trial.objective
    if trial.state == "running":
        value = next((row[results.objective] for row in trial.curve[::-1] if results.objective in row), None)
    return [
        str(trial.number),
        format_objective(value, results.objective),
        *(format_value(trial.parameters.get(name, "")) for name in results.ranges),
        f"{len(trial.curve)}/{trial.epochs}",
        format_duration(trial.seconds),
        trial.state if not trial.reason else f"{trial.state}: {trial.reason[:60]}",
    ]


def _how_far(trial: Trial, results: Results) -> str:
    value = trial.curve[-1].get(results.objective)
    score = f" {results.objective}={value:.4f}" if value is not None else ""
    return f"trial {trial.number}: epoch {len(trial.curve)}/{trial.epochs}{score}"
