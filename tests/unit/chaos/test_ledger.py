"""What the book says about requests: rates, quantiles, and who was lost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from chaos.ledger import Entry, Fate, Ledger, is_flat, lost_at_shutdown, percentile, unexplained


def entry(fate: Fate, **fields: Any) -> Entry:
    """A request that was sent at 1.0 and ended at 2.0 unless said otherwise."""
    given = {
        "started": 1.0,
        "sent": 1.0,
        "ended": 2.0,
        "status": 200 if fate is Fate.ANSWERED else 0,
    } | fields
    return Entry(id=0, fate=fate, **given)


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [pytest.param(0.5, 2.0), pytest.param(0.75, 3.0), pytest.param(0.99, 4.0), pytest.param(0.0, 1.0)],
)
def test_percentile_is_the_nearest_rank(quantile: float, expected: float) -> None:
    assert percentile([4.0, 2.0, 1.0, 3.0], quantile) == expected
    assert math.isnan(percentile([], quantile))


def test_goodput_counts_2xx_answers_that_ended_in_the_window() -> None:
    ledger = Ledger(
        [
            entry(Fate.ANSWERED, ended=0.9),
            entry(Fate.ANSWERED, ended=1.0),
            entry(Fate.ANSWERED, ended=2.5),
            entry(Fate.ANSWERED, ended=2.0, status=400),
            entry(Fate.TURNED_AWAY, ended=2.0, status=503),
            entry(Fate.ANSWERED, ended=3.0),
            entry(Fate.OPEN, ended=None),
        ]
    )

    assert ledger.goodput(1.0, 3.0) == 1.0
    assert ledger.counts() == {"answered": 5, "turned_away": 1, "open": 1}


def test_waiting_time_counts_from_when_a_request_was_due() -> None:
    ledger = Ledger([entry(Fate.ANSWERED, started=0.5, sent=1.9, ended=2.0)])

    assert ledger.seconds(0.99) == 1.5
    assert entry(Fate.OPEN, ended=None).seconds == math.inf


def test_refusals_harm_nobody() -> None:
    fates = [Fate.ANSWERED, Fate.TURNED_AWAY, Fate.FAILED, Fate.RESET, Fate.TIMED_OUT, Fate.OPEN]

    harmed = Ledger([entry(fate) for fate in fates]).harmed()

    assert [one.fate for one in harmed] == fates[2:]


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        pytest.param(entry(Fate.ANSWERED), False, id="answered"),
        pytest.param(entry(Fate.TURNED_AWAY, status=503), False, id="turned away"),
        pytest.param(entry(Fate.CUT_OFF, sent=5.5), True, id="read and dropped"),
        pytest.param(entry(Fate.FAILED, sent=5.5, status=500), True, id="failed"),
        pytest.param(entry(Fate.TIMED_OUT, sent=5.5), True, id="hangs"),
        pytest.param(entry(Fate.OPEN, sent=5.5, ended=None), True, id="still open"),
        pytest.param(entry(Fate.CUT_OFF, sent=7.0), False, id="sent after the socket closed"),
        pytest.param(entry(Fate.CUT_OFF, sent=None), False, id="never wholly sent"),
        pytest.param(entry(Fate.NOT_CONNECTED, sent=None), False, id="refused"),
        pytest.param(entry(Fate.RESET, sent=5.5, reused=True), False, id="reset after the signal"),
        pytest.param(entry(Fate.RESET, sent=4.5, reused=False), False, id="reset in the backlog"),
        pytest.param(entry(Fate.RESET, sent=4.5, reused=True), True, id="reset though it was there before"),
        pytest.param(entry(Fate.CLOSED_BEFORE_SENT, sent=5.5, reused=True), False, id="idle hang-up"),
    ],
)
def test_accepted_requests_without_an_answer_are_lost(request_: Entry, lost: bool) -> None:
    found = lost_at_shutdown([request_], signalled=5.0, stopped_listening=6.0)

    assert found == ([request_] if lost else [])


@pytest.mark.parametrize(
    ("started", "ended", "explained"),
    [
        pytest.param(9.0, 10.1, True, id="in flight at the kill"),
        pytest.param(11.5, 11.6, True, id="just after it"),
        pytest.param(9.0, None, True, id="in flight and never ended"),
        pytest.param(13.0, 13.1, False, id="long after"),
        pytest.param(8.0, 9.9, False, id="before"),
    ],
)
def test_failure_needs_a_kill_to_explain_it(started: float, ended: float | None, explained: bool) -> None:
    failure = entry(Fate.RESET, started=started, ended=ended)

    assert (unexplained([failure], [10.0], within=2.0) == []) == explained
    assert unexplained([entry(Fate.ANSWERED, started=started, ended=ended)], [], within=2.0) == []


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        pytest.param([50, 90, 100, 100, 100, 101, 100, 100], True, id="warms up, then stays"),
        pytest.param([100, 100, 100, 104, 108, 112, 116, 120], False, id="leaks"),
        pytest.param([100, 100, 100, 100, 80, 80, 80, 80], True, id="falls"),
        pytest.param([1, 1, 1], False, id="too few to tell"),
    ],
)
def test_flat_is_told_from_growing(values: list[float], flat: bool) -> None:
    assert is_flat(values, tolerance=0.05) == flat


def test_slack_is_in_the_values_own_unit() -> None:
    values = [10.0, 10.0, 10.0, 10.0, 12.0, 12.0, 12.0, 12.0]

    assert is_flat(values, slack=2.0)
    assert not is_flat(values, slack=1.9)
