"""The picture beside the results: throughput by server and network, with the limit above."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from benchmarks.serving.summary import NetworkRun

KENNEL_COLOUR, PEER_COLOUR, LIMIT_COLOUR = "#1f6f54", "#9aa5ad", "#c2410c"


def draw_throughput(networks: Mapping[str, NetworkRun], path: Path) -> None:
    """A panel per network; bars by server, the fastest at the top, the limit as a line."""
    with matplotlib.rc_context({"svg.hashsalt": "kennel", "font.size": 9}):  # the same numbers, the same file
        figure, axes = pyplot.subplots(1, len(networks), figsize=(4.2 * len(networks), 3.2), squeeze=False)
        for axis, (name, run) in zip(axes[0], networks.items(), strict=True):
            rates = {peer: per_second for peer, (_, per_second) in run.peers.items()}
            rates["kennel"] = statistics.median(each.kennel for each in run.rounds)
            servers = sorted(rates, key=lambda server: rates[server])
            colours = [KENNEL_COLOUR if server == "kennel" else PEER_COLOUR for server in servers]
            bars = axis.barh(servers, [rates[server] for server in servers], color=colours)
            axis.bar_label(bars, fmt="%.0f", padding=3)
            limit = statistics.median(each.limit for each in run.rounds)
            axis.axvline(limit, color=LIMIT_COLOUR, linestyle="--", label=f"limit without HTTP: {limit:.0f}")
            axis.set_xlim(0, 1.15 * max(limit, *rates.values()))
            axis.set_title(name)
            axis.set_xlabel("images a second")
            axis.legend(loc="lower right", frameon=False)
            axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
