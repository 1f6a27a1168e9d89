"""The page of a search: one HTML file, the best trial first, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoring.page import open_templates
from tuning.charts import (
    draw_curves,
    draw_history,
    draw_importances,
    draw_parallel_coordinates,
    draw_slice,
)
from tuning.importance import estimate_importances
from tuning.results import Results, Trial
from tuning.words import format_dollars, format_duration, format_objective, format_value

MOST_SLICES = 12


def write_report(results: Results, destination: Path) -> None:
    """report.html."""
    templates = open_templates(Path(__file__).parent)
    templates.filters |= {
        "duration": format_duration,
        "value": format_value,
        "dollars": format_dollars,
    }
    importances = estimate_importances(results)
    slices = [*importances, *(name for name in results.ranges if name not in importances)][:MOST_SLICES]
    page = templates.get_template("report.html").render(
        results=results,
        lead=lead_words(results),
        tiles=build_tiles(results),
        rows=build_rows(results),
        ranges={name: _range_words(values) for name, values in results.ranges.items()},
        score=lambda value: format_objective(value, results.objective),
        history=draw_history(results),
        curves=draw_curves(results),
        parallel=draw_parallel_coordinates(results),
        importance=draw_importances(importances),
        importance_words=importance_words(importances),
        slices={name: svg for name in slices if (svg := draw_slice(results, name))},
    )
    destination.write_text(page, encoding="utf-8", errors="replace")


def lead_words(results: Results) -> str:
    """What came out, in a sentence."""
    best = results.best
    if best is None:
        return f"No trial of {len(results.trials)} has a score yet."
    *first, last = (f"{name} {format_value(value)}" for name, value in best.parameters.items())
    values = f"{', '.join(first)} and {last}" if first else last
    score = format_objective(best.objective, results.objective)
    return f"{score} {_words(results.objective)} with {values}."


def build_tiles(results: Results) -> list[dict[str, str]]:
    """The figures at the top."""
    trials = results.trials
    counts = {
        state: sum(trial.state == state for trial in trials) for state in ("stopped", "failed", "running")
    }
    others = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    best = results.best
    spent = sum(trial.seconds for trial in trials)
    tiles = [
        _tile(
            _words(results.objective).capitalize(),
            format_objective(best.objective if best else None, results.objective),
            f"trial {best.number}, the best of {len(trials)}" if best else "no trial has a score",
        ),
        _tile("Trials", str(len(trials)), others or "all completed"),
        _tile("Time", format_duration(results.seconds), f"{format_duration(spent)} of trials, added up"),
        _epochs_tile(results),
    ]
    if results.dollars_per_hour is not None:
        dollars = sum(results.dollars(trial) or 0.0 for trial in trials)
        tiles.append(_tile("Cost", format_dollars(dollars), f"{results.dollars_per_hour:.3f} $/h a trial"))
    return tiles


def build_rows(results: Results) -> list[dict[str, Any]]:
    """Best first, then what runs, then what failed."""
    ranked = results.ranked()
    others = sorted(
        (t for t in results.trials if t not in ranked), key=lambda trial: trial.state != "running"
    )
    return [{"trial": trial, "dollars": results.dollars(trial)} for trial in [*ranked, *others]]


def saved_epochs(results: Results) -> tuple[int, int]:
    """Epochs that stopping saved, and that there would have been without."""
    ended = [trial for trial in results.trials if trial.state in ("completed", "stopped")]
    planned = sum(trial.epochs for trial in ended)
    return planned - sum(map(_epochs_run, ended)), planned


def importance_words(importances: dict[str, float]) -> str:
    """What to make of the bars, or why there are none."""
    if not importances:
        return "Too few completed trials to tell the hyperparameters' importance."
    first, share = next(iter(importances.items()))
    return (
        f"{first} explains {100 * share:.0f} % of the differences between the completed trials; narrow its "
        "range and widen the others' if you search again."
    )


def _epochs_tile(results: Results) -> dict[str, str]:
    saved, planned = saved_epochs(results)
    words = f"of {planned}; stopping early saved {100 * saved / planned:.0f} %" if saved and planned else ""
    return _tile("Epochs", str(planned - saved), words or "no trial was stopped early")


def _epochs_run(trial: Trial) -> int:
    return min(len(trial.curve), trial.epochs) if trial.state == "stopped" else trial.epochs


def _range_words(values: Any) -> str:
    if values["type"] == "categorical":
        return ", ".join(format_value(value) for value in values["values"])
    return f"{format_value(values['low'])} to {format_value(values['high'])}, {values['scale']}"


def _tile(name: str, figure: str, words: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "words": words}


def _words(metric: str) -> str:
    return metric.replace("top1", "top-1").replace("top5", "top-5").replace("_", " ")
