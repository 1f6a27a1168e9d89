"""The results page: a head that says on what, then tables. Pure but for what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from benchmarks.serving.measure import CONNECTIONS, OPEN_LOOP_SHARE, PINGS_PER_SECOND, Cell
from benchmarks.serving.pictures import SIZES
from benchmarks.serving.servers import SERVERS
from benchmarks.serving.session import Session
from benchmarks.sources import stamp_line

SOURCES = ("serving/", "container/serve")
HOW = f"""\
One JPEG a request, {CONNECTIONS} keep-alive connections, closed loop by wrk on the same cores, loopback.
All serve the same weights: Kennel's artifact, which the peers load into torchvision's network in eager mode.
Kennel answers in int8. The machine's speed drifts by the minute, so what is compared was measured in turn:
Kennel, limit, peer, Kennel, limit, peer, ..., Kennel, limit. Kennel's and the limit's throughput are medians
of these slices, `ratio to limit` is the median of the pairs' ratios, and a peer's ratio takes the slices of
Kennel before and after it. The limit is decoding and inference in processes without HTTP, by the best of the
arrangements tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a page begins with."""

    today: str  # ISO
    command: str
    machine: str
    versions: str

    def lines(self, title: str) -> list[str]:
        """Title, date, machine, versions, command."""
        when = date.fromisoformat(self.today).strftime("%-d %B %Y")
        return [
            f"# {title}",
            "",
            f"{when}. {self.machine}",
            self.versions,
            "",
            f"    {self.command.strip()}",
            "",
        ]


def session_page(head: Head, session: Session, result: Mapping[str, Any]) -> str:
    """Everything a full run found."""
    lines = head.lines("Serving: Kennel, its peers and the limit")
    lines += [HOW, "", "## Throughput and ratios, typical picture", "", *_ratio_table(result["networks"]), ""]
    lines += [_limits(session), ""]
    lines += _cells(session)
    lines += _patterns(session)
    lines += _pings(session)
    lines += ["## How each was started", ""]
    lines += table(["server", "settings"], [[name, SERVERS[name].settings] for name in session.plan.servers])
    if session.failures:
        lines += [
            "",
            "Left out: " + "; ".join(f"**{name}**: {why}" for name, why in session.failures.items()),
        ]
    return "\n".join([*lines, "", stamp_line(*SOURCES)]) + "\n"


def quota_page(head: Head, result: Mapping[str, Any]) -> str:
    """Kennel and the limit under a quota."""
    lines = head.lines(f"Serving in a container with --cpus {result['cpus']}")
    lines += [
        "Kennel and the limit in turn, each in a container of the serving image with that quota.",
        "wrk runs outside.",
        "",
    ]
    lines += [*_ratio_table(result["networks"]), "", stamp_line(*SOURCES)]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _ratio_table(networks: Mapping[str, Any]) -> list[str]:
    head = [
        "network",
        "Kennel/s",
        "limit/s",
        "ratio to limit",
        "best peer",
        "best peer/s",
        "ratio to best peer",
    ]
    rows = []
    for name, entry in networks.items():
        best = entry["best_torch_peer"]
        peer = [best, _number(entry["requests_per_second"][best])] if best else ["–", "–"]
        ratio = _number(entry["ratio_to_best_torch_peer"]) if best else "–"
        kennel, limit = _number(entry["requests_per_second"]["kennel"]), _number(entry["limit_per_second"])
        rows.append([name, kennel, limit, f"{entry['ratio_to_limit']:.1%}", *peer, ratio])
    return table(head, rows)


def _limits(session: Session) -> str:
    tried = "; ".join(
        f"{name} " + ", ".join(f"{which} {_number(value)}" for which, value in run.arrangements.items())
        for name, run in session.networks.items()
    )
    return f"Arrangements of the limit, one slice each, per second: {tried}."


def _cells(session: Session) -> list[str]:
    head = [
        "server",
        "per second",
        "p50 ms",
        "p99",
        "p99.9",
        "single ms",
        "open p50",
        "p99",
        "p99.9",
        "p99 / single",
    ]
    head += ["PSS MB", "start s", "CPU s / 1000"]
    lines = []
    for network in session.plan.networks:
        for picture in session.plan.pictures_of(network):
            chosen = [cell for cell in session.cells if (cell.network, cell.picture) == (network, picture)]
            width, height = SIZES[picture]
            lines += [f"## {network}, {picture} picture ({width} x {height})", ""]
            lines += [*table(head, [_cell_row(cell) for cell in chosen]), ""]
    return [
        *lines,
        "p50 to p99.9 are of the closed loop; `single` is the median of one connection; `open` is a constant",
        f"rate of {OPEN_LOOP_SHARE:.0%} of the throughput, timed from when each request should have left.",
        "Memory is the sum of the proportional set sizes of all processes after the load; start is from",
        "process start to the first 200 on the health route, which some peers answer too early.",
        "",
    ]


def _cell_row(cell: Cell) -> list[str]:
    opened = ["–"] * 4
    if cell.open_loop and cell.p99_to_single:
        latencies = (cell.open_loop.p50_ms, cell.open_loop.p99_ms, cell.open_loop.p999_ms)
        opened = [*map(_number, latencies), f"{cell.p99_to_single:.1f}"]
    closed = (cell.per_second, cell.p50_ms, cell.p99_ms, cell.p999_ms, cell.single_ms)
    costs = (cell.memory_mb, cell.start_seconds, cell.cpu_seconds_per_1000)
    return [cell.server, *map(_number, closed), *opened, *map(_number, costs)]


def _patterns(session: Session) -> list[str]:
    runs = {name: run.patterns for name, run in session.networks.items() if run.patterns}
    if not runs:
        return []
    names = list(next(iter(runs.values())))
    rows = [[network, *(_number(rates[name]) for name in names)] for network, rates in runs.items()]
    return ["## Kennel by connection pattern, per second", "", *table(["network", *names], rows), ""]


def _pings(session: Session) -> list[str]:
    if not session.pings:
        return []
    rows = [
        [network, str(ping.requests), _number(ping.p50_ms), _number(ping.p99_ms), _number(ping.p999_ms)]
        for network, ping in session.pings.items()
    ]
    title = f"## Kennel's /ping while all cores are busy ({PINGS_PER_SECOND:g} a second)"
    return [title, "", *table(["network", "pings", "p50 ms", "p99", "p99.9"], rows), ""]


def _number(value: float) -> str:
    """Three digits: 1234, 123, 12.3, 1.23."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
