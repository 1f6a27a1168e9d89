"""Fractions with their uncertainty."""

from __future__ import annotations

from typing import Any


def proportion(correct: int, count: int) -> dict[str, Any]:
    """A fraction with its 95 % Wilson interval, which stays inside 0-1 and works for 0 and for all."""
    if count == 0:
        return {"value": None, "low": None, "high": None, "correct": 0, "count": 0}
    from scipy.stats import binomtest  # slow to import, and few processes of a job need it

    interval = binomtest(correct, count).proportion_ci(method="wilson")
    low, high = float(interval.low), float(interval.high)
    return {"value": correct / count, "low": low, "high": high, "correct": correct, "count": count}


def paired_p_value(only_first: int, only_second: int) -> float | None:
    """McNemar's exact test: how likely so uneven a split is by chance. None where nothing differs."""
    from scipy.stats import binomtest

    count = only_first + only_second
    return float(binomtest(only_first, count).pvalue) if count else None
