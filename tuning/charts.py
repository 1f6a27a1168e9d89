"""A search in charts: history, learning curves, parallel coordinates, importance, slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from scoring.charts import ACCENT, INK, MUTED, RULE, new_axes, to_svg
from training.recipe_fields import Scalar
from tuning.results import Results, Trial
from tuning.words import format_value

WIDE = (9.2, 3.6)
STATES = {"completed": "completed", "stopped": "stopped early"}
LOWEST_ALPHA = 0.18  # of the worst trial's line
MOST_NAMED_LINES = 10


def draw_history(results: Results) -> str:
    """The objective of each trial, and the best so far; empty without a score."""
    scored = [trial for trial in results.trials if trial.objective is not None]
    if not scored:
        return ""
    _, axes = figure_and_axes = new_axes()
    _scatter(axes, results, lambda trial: trial.number)
    best = np.minimum.accumulate([results.loss(trial.objective) for trial in scored])
    sign = -1 if results.direction == "maximize" else 1
    numbers = [trial.number for trial in scored]
    axes.plot(numbers, sign * best, color=INK, linewidth=1.2, drawstyle="steps-post", label="best so far")
    for trial in results.trials:
        if trial.state == "failed":
            axes.axvline(trial.number, color=RULE, linewidth=3, zorder=0)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    _show_objective(axes, results.objective)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return to_svg(figure_and_axes[0], title="objective by trial")


def draw_curves(results: Results) -> str:
    """The objective by epoch, of all trials; of a `best_` objective the value of each epoch itself."""
    name = results.objective.removeprefix("best_")
    best = results.best
    drawn = [trial for trial in results.trials if any(name in row for row in trial.curve)]
    if not drawn:
        return ""
    figure, axes = new_axes()
    for trial in drawn:
        points = [(epoch, row[name]) for epoch, row in enumerate(trial.curve, start=1) if name in row]
        _draw_line(axes, points, trial, is_best=best is not None and trial.number == best.number)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.margins(y=0.08)
    _show_objective(axes, name)
    return to_svg(figure, title="objective by epoch, of all trials")


def _draw_line(axes: Axes, points: list[tuple[int, float]], trial: Trial, *, is_best: bool) -> None:
    color, layer = (ACCENT, 3) if is_best else (MUTED, 2)
    alpha, width = (1.0, 2.2) if is_best else (0.55, 1.1)
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=color, linewidth=width, alpha=alpha, zorder=layer)
    fill = "none" if trial.state == "stopped" else "full"
    axes.plot(epochs[-1:], values[-1:], marker="o", markersize=4, color=color, fillstyle=fill, zorder=layer)


def draw_parallel_coordinates(results: Results) -> str:
    """A line for each trial, through its values to its score; the better, the stronger."""
    ranked = results.ranked()
    if len(ranked) < 2:
        return ""
    figure, axes = new_axes(inches=WIDE)
    axes.set_position((0.06, 0.1, 0.88, 0.78))
    axes.grid(visible=False)
    scales = [*(_place_in(values) for values in results.ranges.values()), _place_objective(results, ranked)]
    names = [*results.ranges, results.objective]
    for column, (place, ticks) in enumerate(scales):
        axes.axvline(column, color=RULE, linewidth=1)
        for value in ticks:
            axes.annotate(
                _shown(value, names[column]),
                (column, place(value)),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=8,
            )
    for rank, trial in reversed(list(enumerate(ranked))):
        row = [*(trial.parameters[name] for name in results.ranges), trial.objective]
        heights = [place(value) for (place, _), value in zip(scales, row, strict=True)]
        alpha = 1 - (1 - LOWEST_ALPHA) * rank / max(1, len(ranked) - 1)
        axes.plot(heights, color=ACCENT, alpha=alpha, linewidth=2.4 if rank == 0 else 1.3)
    axes.set(xlim=(-0.05, len(scales) - 0.75), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    return to_svg(figure, title="values and score of each trial")


def draw_importances(importances: Mapping[str, float]) -> str:
    """A bar for each hyperparameter, the most important on top; empty without any."""
    if not importances:
        return ""
    figure, axes = new_axes(inches=(4.6, 0.7 + 0.42 * len(importances)))
    axes.set_position((0.3, 0.3 / (0.7 + 0.42 * len(importances)), 0.58, 0.85))
    axes.grid(visible=False)
    names, shares = list(importances)[::-1], list(importances.values())[::-1]
    axes.barh(names, shares, height=0.55, color=ACCENT, alpha=0.8)
    for place, share in enumerate(shares):
        axes.annotate(
            f"{100 * share:.0f} %",
            (share, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
            fontsize=9,
        )
    axes.set(xticks=[], xlim=(0, max(1e-9, *shares) * 1.02))
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=INK)
    return to_svg(figure, title="importance of each hyperparameter")


def draw_slice(results: Results, name: str) -> str:
    """The objective over one hyperparameter."""
    if not results.ranked():
        return ""
    figure, axes = new_axes()
    values = results.ranges[name]
    if values["type"] == "categorical":
        choices = list(values["values"])
        _scatter(axes, results, lambda trial: choices.index(trial.parameters[name]))
        axes.set_xticks(range(len(choices)), [_shown(choice, name) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        _scatter(axes, results, lambda trial: float(trial.parameters[name]))
        if values["scale"] == "logarithmic":
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.tick_params(which="minor", length=0)
        axes.set_xlim(*_widen(values["low"], values["high"], is_log=values["scale"] == "logarithmic"))
    _show_objective(axes, results.objective)
    return to_svg(figure, title=f"objective by {name}")


def _widen(low: float, high: float, *, is_log: bool) -> tuple[float, float]:
    """A twentieth more on both sides."""
    if is_log:
        factor = (high / low) ** 0.05
        return low / factor, high * factor
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _scatter(axes: Axes, results: Results, place: Any) -> None:
    """Filled where the trial completed, hollow where it was stopped; the best has a ring."""
    for state, words in STATES.items():
        trials = [trial for trial in results.ranked() if trial.state == state]
        if trials:
            axes.plot(
                [place(trial) for trial in trials],
                [_height(trial) for trial in trials],
                linestyle="",
                marker="o",
                markersize=6,
                color=ACCENT,
                alpha=0.85,
                markerfacecolor=ACCENT if state == "completed" else "none",
                label=words,
            )
    if results.best:
        axes.plot(
            place(results.best),
            _height(results.best),
            marker="o",
            markersize=11,
            color=INK,
            fillstyle="none",
        )


def _height(trial: Trial) -> float:
    return np.nan if trial.objective is None else trial.objective


def _show_objective(axes: Axes, name: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if name.endswith("_accuracy"):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def _place_in(values: Mapping[str, Any]) -> tuple[Any, list[Scalar]]:
    """A value's height from 0 to 1 on its axis, and the values to name there."""
    if values["type"] == "categorical":
        choices = list(values["values"])
        return (lambda value: choices.index(value) / max(1, len(choices) - 1)), choices[:MOST_NAMED_LINES]
    low, high = values["low"], values["high"]
    if values["scale"] == "logarithmic":
        return (lambda value: float(np.log(value / low) / np.log(high / low))), [
            low,
            (low * high) ** 0.5,
            high,
        ]
    return (lambda value: (value - low) / (high - low)), [low, (low + high) / 2, high]


def _place_objective(results: Results, ranked: list[Trial]) -> tuple[Any, list[Scalar]]:
    """Better is higher."""
    losses = [results.loss(trial.objective) for trial in ranked]
    span = (losses[-1] - losses[0]) or 1.0
    ends = [trial.objective for trial in (ranked[0], ranked[-1]) if trial.objective is not None]
    return (lambda value: 1 - (results.loss(value) - losses[0]) / span), [*dict.fromkeys(ends)]


def _shown(value: Scalar, name: str) -> str:
    """Text of a recipe, of which matplotlib shall make no formula."""
    if name.endswith("_accuracy"):
        return f"{100 * float(value):.1f} %"
    return format_value(value).replace("$", r"\$")
