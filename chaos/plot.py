"""Memory and descriptors over time, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_usage(samples: Sequence[tuple[float, int, int]], path: Path) -> None:
    """`samples` are seconds, PSS in bytes, descriptors; both axes from 0, so that flat looks flat."""
    minutes = [seconds / 60 for seconds, _, _ in samples]
    figure = Figure(figsize=(8, 4))
    memory = figure.add_subplot()
    memory.plot(minutes, [pss / 1e6 for _, pss, _ in samples], color="tab:blue")
    memory.set(xlabel="minutes", ylim=(0, 1.1 * max(pss / 1e6 for _, pss, _ in samples)))
    memory.set_ylabel("memory of all processes (PSS), MB", color="tab:blue")
    descriptors = memory.twinx()
    descriptors.plot(minutes, [count for _, _, count in samples], color="tab:orange")
    descriptors.set(ylim=(0, 1.5 * max(count for _, _, count in samples)))
    descriptors.set_ylabel("open descriptors", color="tab:orange")
    figure.savefig(path, format="svg", bbox_inches="tight")
