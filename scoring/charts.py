"""Charts as inline SVG whose colours are the page's own CSS variables: one drawing for light, dark and print.

No text from outside (a label, a path) is drawn here: matplotlib would read `$` as mathematics.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Drawn with these, then replaced by CSS variables of report.html.
INK, MUTED, RULE, ACCENT = "#010101", "#020202", "#030303", "#040404"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent"}
RIGHT_RGB, WRONG_RGB = (
    (46, 139, 130),
    (214, 98, 48),
)  # pixels of the heat map: mid tones, legible on both grounds

FEWEST_DRAWN = 10  # answers behind a point of the abstaining curve; fewer jump about

LOSS_SERIES = {"train_loss": "training", "validation_loss": "validation"}
ACCURACY_SERIES = {"train_top1_accuracy": "training", "validation_top1_accuracy": "validation"}


def draw_learning_curves(history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Chart title -> SVG, for loss and accuracy, as far as `history` (one mapping per epoch) has them."""
    charts = {"Loss": LOSS_SERIES, "Top-1 accuracy": ACCURACY_SERIES}
    drawn = {title: _draw_curves(history, series) for title, series in charts.items()}
    return {title: svg for title, svg in drawn.items() if svg}


def _draw_curves(history: Sequence[Mapping[str, float]], series: Mapping[str, str]) -> str:
    figure, axes = new_axes()
    epochs = np.array([row.get("epoch", place) for place, row in enumerate(history, start=1)], dtype=float)
    present = [name for name in series if any(row.get(name) is not None for row in history)]
    for name in present:
        values = np.array([np.nan if row.get(name) is None else row[name] for row in history], dtype=float)
        color = ACCENT if name.startswith("validation") else MUTED
        marker = "o" if len(history) <= 12 else ""
        axes.plot(
            epochs, values, color=color, marker=marker, markersize=3.5, linewidth=1.8, label=series[name]
        )
    if not present:
        return ""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(y=0.08)
    if series is ACCURACY_SERIES:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return to_svg(figure, title=f"{' and '.join(present)} by epoch")


def draw_reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """How often it was right at each confidence, over a strip of how many images stand behind a bar."""
    figure, axes = new_axes()
    filled = [row for row in bins if row["count"]]
    lows, width = [row["low"] for row in filled], 1 / len(bins)
    axes.bar(lows, [row["accuracy"] for row in filled], width * 0.86, align="edge", color=ACCENT, alpha=0.75)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="right", xticks=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.set_position((0.15, 0.36, 0.79, 0.61))
    strip = figure.add_axes((0.15, 0.17, 0.79, 0.13))
    calm(strip)
    strip.bar(lows, [row["count"] for row in filled], width * 0.86, align="edge", color=MUTED, alpha=0.6)
    strip.set(xlim=(0, 1), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="confidence")
    strip.set_ylabel("images", rotation=0, ha="right", va="center", labelpad=8)
    strip.xaxis.set_major_formatter(_PERCENT)
    return to_svg(figure, title="share of right answers by confidence")


def draw_abstaining(curve: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy of the answers that are given, by the share of images that get one; with its interval."""
    figure, axes = new_axes()
    curve = [point for point in curve if point["accuracy"]["count"] >= FEWEST_DRAWN] or curve[-1:]
    coverages = [point["coverage"] for point in curve]
    middle, low, high = ([point["accuracy"][name] for point in curve] for name in ("value", "low", "high"))
    axes.fill_between(coverages, low, high, color=ACCENT, alpha=0.18, linewidth=0)
    axes.plot(coverages, middle, color=ACCENT, linewidth=1.8)
    axes.set_position((0.15, 0.17, 0.79, 0.8))
    axes.set(xlim=(0, 1.01), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="share of images answered")
    axes.set_ylim(max(0.0, min(middle) - 0.05), 1.005)
    axes.set_ylabel("right")
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %" if value <= 1 else ""))
    return to_svg(figure, title="share of right answers by share of images answered")


def draw_confusion_matrix(matrix: Sequence[Sequence[int]]) -> str:
    """One pixel per cell, as a share of its row; even one mistake among many is strong enough to be seen."""
    counts = np.asarray(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = WRONG_RGB
    pixels[np.eye(len(counts), dtype=bool), :3] = RIGHT_RGB
    pixels[..., 3] = np.where(counts > 0, 100 + 155 * shares, 0)
    figure, axes = new_axes(inches=(5.6, 5.6))
    axes.set_position((0.1, 0.09, 0.87, 0.87))
    axes.grid(visible=False)
    edge = len(counts) + 0.5
    axes.imshow(pixels, interpolation="none", extent=(0.5, edge, edge, 0.5))
    for spine in axes.spines.values():
        spine.set_visible(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set(
        xlabel="predicted (number in the table below)", ylabel="truth", xlim=(0.5, edge), ylim=(edge, 0.5)
    )
    return to_svg(figure, title=f"confusion matrix of {len(counts)} labels")


_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")


def new_axes(inches: tuple[float, float] = (4.6, 3.2)) -> tuple[Figure, Axes]:
    """Small on purpose: the page scales it, so the text stays readable at phone width."""
    figure = Figure(figsize=inches)
    figure.patch.set_visible(False)
    axes = figure.add_axes((0.15, 0.17, 0.82, 0.8))
    calm(axes)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    return figure, axes


def calm(axes: Axes) -> None:
    """No frame but a base line, small muted labels."""
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED, pad=5)
    axes.xaxis.label.set(color=MUTED, size=9)
    axes.yaxis.label.set(color=MUTED, size=9)
    for side, spine in axes.spines.items():
        spine.set(color=RULE, visible=side == "bottom")


def to_svg(figure: Figure, *, title: str) -> str:
    """Inline SVG in the page's colours; `title` is what a screen reader says."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):  # text as text; stable ids
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(
        "<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1
    )
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text
