"""From slices to the ratios that count. Pure: no process, no clock.

The machine's speed drifts by the minute, so nothing is compared that was not measured side by side:
Kennel and the limit in turn (K L peer K L peer ... K L), a peer with the slices of Kennel around it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.serving.measure import Cell
from benchmarks.serving.open_loop import OpenLoop

MOST_DIFFERENCE = 0.10  # between two runs' ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One slice of Kennel and, right after it, one of the limit; both per second."""

    kennel: float
    limit: float


@dataclass(slots=True, kw_only=True)
class NetworkRun:
    """All that was measured of one network on the typical picture, in order of time."""

    network: str
    arrangements: dict[str, float] = field(default_factory=dict)  # the limit's, once each
    best_arrangement: str = ""
    rounds: list[Round] = field(default_factory=list)  # one before each peer, one at the end
    peers: dict[str, tuple[int, float]] = field(
        default_factory=dict
    )  # (index of the round before it, per second)
    patterns: dict[str, float] = field(default_factory=dict)


def ratio_to_limit(rounds: Sequence[Round]) -> float:
    """Median of the pairs' ratios."""
    return statistics.median(each.kennel / each.limit for each in rounds)


def ratio_to_peer(rounds: Sequence[Round], before: int, per_second: float) -> float:
    """Kennel's mean of the slices around the peer over the peer's throughput."""
    around = [each.kennel for each in rounds[before : before + 2]]
    return statistics.mean(around) / per_second


def summarize(run: NetworkRun) -> dict[str, Any]:
    """The JSON of one network. Without peers their ratio is None."""
    ratios = {name: ratio_to_peer(run.rounds, *measured) for name, measured in run.peers.items()}
    best = min(ratios, key=lambda name: ratios[name], default=None)
    per_second = {name: round(value, 2) for name, (_, value) in run.peers.items()}
    return {
        "requests_per_second": {
            "kennel": round(statistics.median(r.kennel for r in run.rounds), 2),
            **per_second,
        },
        "limit_per_second": round(statistics.median(r.limit for r in run.rounds), 2),
        "limit_arrangement": run.best_arrangement,
        "best_torch_peer": best,
        "ratio_to_best_torch_peer": round(ratios[best], 3) if best else None,
        "ratio_to_limit": round(ratio_to_limit(run.rounds), 4),
        "ratio_to_peer": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "patterns_per_second": {name: round(value, 2) for name, value in run.patterns.items()},
    }


def picture_ratios(cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """network -> picture -> Kennel's throughput over the best peer's, from one measurement each."""
    ratios: dict[str, dict[str, float]] = {}
    for kennel in (cell for cell in cells if cell.server == "kennel"):
        same = [c for c in cells if (c.network, c.picture) == (kennel.network, kennel.picture)]
        peers = [cell.per_second for cell in same if cell.server != "kennel"]
        if peers:
            ratios.setdefault(kennel.network, {})[kennel.picture] = round(kennel.per_second / max(peers), 3)
    return ratios


def compare(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line per throughput ratio that both runs have, ending in `ok` or `DIFFERS`; see MOST_DIFFERENCE."""
    lines = []
    theirs = dict(_ratios(other))
    for name, value in _ratios(mine):
        if name in theirs:
            difference = value / theirs[name] - 1
            verdict = "ok" if agrees(value, theirs[name]) else "DIFFERS"
            lines.append(f"{name}: {value:.3f} against {theirs[name]:.3f} ({difference:+.1%}) {verdict}")
    return lines


def agrees(one: float, other: float) -> bool:
    """Within MOST_DIFFERENCE of the larger, whichever run came first."""
    return abs(one - other) <= MOST_DIFFERENCE * max(one, other)


def _ratios(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """("resnet50 ratio_to_limit", 0.91), ... of a run's JSON."""
    found = []
    for network, entry in result["networks"].items():
        for name in ("ratio_to_limit", "ratio_to_best_torch_peer"):
            if entry.get(name) is not None:
                found.append((f"{network} {name}", float(entry[name])))
        for kind in ("ratio_to_peer", "ratio_to_best_torch_peer_by_picture"):
            found += [(f"{network} {kind} {key}", float(value)) for key, value in entry.get(kind, {}).items()]
    return found


def session_json(
    networks: Mapping[str, NetworkRun],
    cells: Sequence[Cell],
    pings: Mapping[str, OpenLoop],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """What the last line of stdout holds."""
    by_picture = picture_ratios(cells)
    entries = {name: summarize(run) for name, run in networks.items()}
    for name, ratios in by_picture.items():
        if name in entries:
            entries[name]["ratio_to_best_torch_peer_by_picture"] = ratios
    for name, ping in pings.items():
        entries[name]["ping_under_load_p999_ms"] = round(ping.p999_ms, 2)
    return {
        "networks": entries,
        "cells": [asdict(cell) | {"p99_to_single": cell.p99_to_single} for cell in cells],
        "failures": dict(failures),
    }
