"""Every request and what became of it, and what follows from many. Pure: times are given, in seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Fate(Enum):
    """How a request ended."""

    OPEN = "open"  # not yet
    ANSWERED = "answered"  # with 2xx or 4xx
    TURNED_AWAY = "turned_away"  # 503 with Retry-After: the server's right under overload
    FAILED = "failed"  # any other 5xx
    NOT_CONNECTED = "not_connected"
    CLOSED_BEFORE_SENT = "closed_before_sent"  # the server had hung up before the last byte was sent
    RESET = "reset"  # hung up on with bytes unread, and no byte of an answer
    CUT_OFF = "cut_off"  # hung up on after the request was read, or in the middle of the answer
    TIMED_OUT = "timed_out"


# The server never had the request in hand: whoever sent it may send it again (RFC 9112, 9.3.1).
NEVER_TAKEN = frozenset({Fate.NOT_CONNECTED, Fate.CLOSED_BEFORE_SENT, Fate.RESET})
HARMLESS = frozenset({Fate.ANSWERED, Fate.TURNED_AWAY})


@dataclass(slots=True)
class Entry:
    """One request. Times are `time.monotonic`'s; None is not (yet)."""

    id: int
    started: float  # when it was due; waiting for a connection counts
    reused: bool = False  # its connection had been answered on before
    sent: float | None = None  # last byte handed to the kernel
    ended: float | None = None
    fate: Fate = Fate.OPEN
    status: int = 0
    worker: str = ""  # X-Kennel-Worker of the answer

    @property
    def seconds(self) -> float:
        """From due to ended; infinite for a request still open."""
        return math.inf if self.ended is None else self.ended - self.started


@dataclass(slots=True)
class Ledger:
    """The book."""

    entries: list[Entry] = field(default_factory=list)

    def open(self, started: float) -> Entry:
        """A new line."""
        entry = Entry(id=len(self.entries), started=started)
        self.entries.append(entry)
        return entry

    def between(self, start: float, end: float = math.inf) -> Ledger:
        """Those that ended in [start, end)."""
        chosen = [e for e in self.entries if e.ended is not None and start <= e.ended < end]
        return Ledger(chosen)

    def counts(self) -> dict[str, int]:
        """Fate -> requests."""
        return dict(Counter(entry.fate.value for entry in self.entries))

    def harmed(self) -> list[Entry]:
        """Those neither answered nor politely turned away."""
        return [entry for entry in self.entries if entry.fate not in HARMLESS]

    def goodput(self, start: float, end: float) -> float:
        """2xx answers per second in [start, end)."""
        good = sum(200 <= entry.status < 300 for entry in self.between(start, end).entries)
        return good / (end - start)

    def seconds(self, quantile: float) -> float:
        """Quantile of the time to a 2xx answer; NaN without any."""
        return percentile([e.seconds for e in self.entries if 200 <= e.status < 300], quantile)


def percentile(values: Iterable[float], quantile: float) -> float:
    """The smallest value that at least this share of them does not exceed (nearest rank); NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def lost_at_shutdown(entries: Iterable[Entry], *, signalled: float, stopped_listening: float) -> list[Entry]:
    """Accepted requests without an answer.

    Accepted is a request wholly sent before the server stopped listening whose connection was neither refused
    nor hung up on before the server read from it. On loopback these are told apart exactly: an end of stream
    that is there when the last byte is sent came before it, and closing with bytes unread resets. A request
    sent before SIGTERM on a connection answered on before was accepted whatever happened to it since.
    """
    return [entry for entry in entries if _is_lost(entry, signalled, stopped_listening)]


def _is_lost(entry: Entry, signalled: float, stopped_listening: float) -> bool:
    if entry.fate in HARMLESS or entry.sent is None or entry.sent >= stopped_listening:
        return False
    return entry.fate not in NEVER_TAKEN or (entry.reused and entry.sent < signalled)


def unexplained(entries: Iterable[Entry], kills: Sequence[float], *, within: float) -> list[Entry]:
    """Harmed requests that were not in flight at any kill, nor ended within so many seconds of one.

    Until its death is noticed and a process replaced, connections to it still fail.
    """
    return [
        entry
        for entry in entries
        if entry.fate not in HARMLESS
        and not any(
            entry.started - within <= kill and (entry.ended is None or kill <= entry.ended) for kill in kills
        )
    ]


def is_flat(values: Sequence[float], *, tolerance: float = 0.0, slack: float = 0.0) -> bool:
    """Whether the last quarter's mean is at most so much over the second quarter's: the first warms up.

    `tolerance` is a share of the latter, `slack` in the values' own unit.
    """
    quarter = len(values) // 4
    if quarter < 1:
        return False
    before = sum(values[quarter : 2 * quarter]) / quarter
    after = sum(values[-quarter:]) / quarter
    return after <= before * (1 + tolerance) + slack
