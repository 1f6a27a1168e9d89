"""A run's charts as inline SVG in the page's colours, drawn with scoring's axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from scoring.charts import ACCENT, INK, MUTED, RULE, new_axes, to_svg

Floats = NDArray[np.float64]
Curve = tuple[Sequence[float], Sequence[float]]  # x, y

WIDE = (9.4, 2.7)
# Mid tones that are legible on the light and the dark ground.
PALETTE = ("#2e8b82", "#d66230", "#5b5fc7", "#b58a1f", "#b3487e", "#4f8fc0", "#7d8a3c", "#8a8379")
PHASE_COLORS = {
    "data": "#d66230",
    "transfer": "#b58a1f",
    "augment": "#b3487e",
    "forward": "#2e8b82",
    "backward": "#5b5fc7",
    "optimizer": "#4f8fc0",
    "other": "#8a8379",
}
GROUP_COLORS = {
    "data": "#d66230",
    "augmentation": "#b3487e",
    "convolution": "#2e8b82",
    "batch norm": "#5b5fc7",
    "optimizer": "#4f8fc0",
    "linear": "#7d8a3c",
    "other": "#8a8379",
}
MOST_POINTS = 500
BARS = 24
LOG_SPAN = 50.0  # largest over smallest value, from which an axis is logarithmic


def draw_curves(train: Curve, valid: Curve, *, what: str, is_share: bool) -> str:
    """By step: each batch of the training faintly, its running mean, and the validation passes."""
    _, axes = new_axes()
    x, y = _finite(*train)
    if len(x):
        axes.plot(*_thin(x, y), color=MUTED, linewidth=0.7, alpha=0.45)
        axes.plot(*_thin(x, smooth(y)), color=MUTED, linewidth=1.8, label="training")
    x, y = _finite(*valid)
    if len(x):
        marker = "o" if len(x) <= 40 else ""
        axes.plot(x, y, color=ACCENT, marker=marker, markersize=3.5, linewidth=1.8, label="validation")
    if is_share:
        axes.yaxis.set_major_formatter(_PERCENT)
    return _finish(axes, x_label="step", title=f"{what} by step")


def draw_evidence(evidence: Mapping[str, Sequence[float] | float], step: int | None, *, rule: str) -> str:
    """A rule's evidence, with a mark where it fired; empty where there is nothing to plot."""
    curves = {name: values for name, values in evidence.items() if isinstance(values, Sequence)}
    if len(curves) < 2:
        return ""
    (x_name, x), *rest = curves.items()
    _, axes = new_axes(inches=(4.6, 2.7))
    for color, (name, values) in zip(itertools.cycle(PALETTE), rest, strict=False):
        px, py = _finite(x, values)
        if x_name == "class":
            axes.bar(px, py, color=color, alpha=0.8, label=_plain(name))
        elif len(px):
            marker = "o" if len(px) <= 30 else ""
            axes.plot(
                *_thin(px, py), color=color, linewidth=1.6, marker=marker, markersize=3, label=_plain(name)
            )
    lines = {name: value for name, value in evidence.items() if isinstance(value, (int, float))}
    for name, value in lines.items():
        axes.axhline(value, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), label=_plain(name))
    if step is not None and x_name == "step":
        axes.axvline(step, color=PALETTE[1], linewidth=1.4, label="fired")
    _scale(axes, [value for _, values in rest for value in values], list(lines.values()))
    return _finish(axes, x_label=x_name, title=f"evidence of {rule}")


def draw_pie(parts: Mapping[str, float], colors: Mapping[str, str], *, title: str) -> str:
    """A ring with the shares beside it; parts below one percent are left to the table."""
    total = sum(parts.values())
    shown = {name: value for name, value in parts.items() if value > 0.01 * total}
    if not shown:
        return ""
    figure, axes = new_axes(inches=(4.6, 2.2))
    axes.set_position((0.0, 0.02, 0.46, 0.96))
    axes.grid(visible=False)
    axes.pie(
        list(shown.values()),
        colors=[
            colors.get(name, spare) for name, spare in zip(shown, itertools.cycle(PALETTE), strict=False)
        ],
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.42, "linewidth": 0},
    )
    labels = [f"{name}  {100 * value / total:.0f} %" for name, value in shown.items()]
    figure.legend(
        axes.patches,
        labels,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        loc="center left",
        bbox_to_anchor=(0.55, 0.5),
    )
    return to_svg(figure, title=title)


def draw_phases(steps: Sequence[int], phases: Mapping[str, Sequence[float]]) -> str:
    """Milliseconds of a step by phase, as stacked bars over the training."""
    figure, axes = new_axes(inches=WIDE)
    axes.set_position((0.07, 0.19, 0.76, 0.76))
    parts = np.array_split(np.arange(len(steps)), min(BARS, len(steps)))
    places = np.arange(len(parts))
    bottom = np.zeros(len(parts))
    for name, seconds in phases.items():
        heights = np.array([1000 * np.mean(np.asarray(seconds)[part]) for part in parts])
        axes.bar(places, heights, 0.8, bottom=bottom, color=PHASE_COLORS.get(name, PALETTE[-1]), label=name)
        bottom += heights
    every = max(1, len(parts) // 8)
    axes.set_xticks(places[::every], [str(steps[int(part[0])]) for part in parts[::every]])
    axes.set(xlabel="from step", ylabel="ms of a step")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        loc="center left",
        bbox_to_anchor=(0.85, 0.55),
    )
    return to_svg(figure, title="where the time of a step goes, over the training")


def draw_usage(seconds: Floats, curves: Mapping[str, Floats], training: tuple[float, float] | None) -> str:
    """Percent over time; the training is what lies on the tinted ground."""
    figure, axes = new_axes(inches=WIDE)
    axes.set_position((0.07, 0.19, 0.76, 0.76))
    if training:
        axes.axvspan(*training, color=RULE, alpha=0.35, linewidth=0)
    for color, (name, values) in zip(itertools.cycle(PALETTE), curves.items(), strict=False):
        x, y = _finite(seconds, values)
        axes.plot(*_thin(x, y), color=color, linewidth=1.5, label=name)
    axes.set(ylim=(0, 102), xlabel="seconds")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        loc="center left",
        bbox_to_anchor=(0.85, 0.55),
    )
    return to_svg(figure, title="use of the machine over time")


def draw_comparison(runs: Mapping[str, Curve], *, what: str, is_share: bool) -> str:
    """One curve a run, by step."""
    _, axes = new_axes()
    for color, (name, (x, y)) in zip(itertools.cycle(PALETTE), runs.items(), strict=False):
        px, py = _finite(x, y)
        if len(px):
            values = smooth(py) if len(py) > 40 else py
            axes.plot(*_thin(px, values), color=color, linewidth=1.7, label=_plain(name))
    if is_share:
        axes.yaxis.set_major_formatter(_PERCENT)
    return _finish(axes, x_label="step", title=f"{what} of the runs by step")


def smooth(values: Floats) -> Floats:
    """Running mean over a thirtieth of the curve, at least 3 and at most 101 points; as long as the curve."""
    width = min(101, max(3, len(values) // 30))
    if len(values) <= width:
        return values
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def _finish(axes: Axes, *, x_label: str, title: str) -> str:
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x_label in ("step", "class")))
    axes.margins(y=0.1)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return to_svg(figure, title=title)


def _scale(axes: Axes, values: Sequence[float], lines: Sequence[float]) -> None:
    """Logarithmic where all is positive and spans orders of magnitude."""
    known = [value for value in (*values, *lines) if math.isfinite(value) and value != 0.0]
    if known and min(known) > 0 and max(known) / min(known) > LOG_SPAN:
        axes.set_yscale("log")


def _finite(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    px, py = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    keep = np.isfinite(px) & np.isfinite(py)
    return px[keep], py[keep]


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    if len(x) <= MOST_POINTS:
        return x, y
    keep = np.linspace(0, len(x) - 1, MOST_POINTS).astype(int)
    return x[keep], y[keep]


def _plain(text: str) -> str:
    """matplotlib would read `$` as mathematics, and hide a legend entry that begins with an underscore."""
    return text.replace("$", r"\$").lstrip("_")


_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")
