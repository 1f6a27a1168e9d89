"""A metric line and its regex come from one definition."""

from __future__ import annotations

import re

import pytest

from training.metrics import METRICS, metric_definitions, metric_line, metric_regex


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, 0.97, 1e-7, 123456.75, -2.5])
def test_line_matches_its_own_regex_and_no_other(name: str, value: float) -> None:
    line = metric_line(name, value)

    matching = {other for other in METRICS if re.search(metric_regex(other), line)}
    match = re.search(metric_regex(name), line)

    assert matching == {name}
    assert match is not None and float(match[1]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_value_that_is_not_finite_matches_no_regex(value: float) -> None:
    assert not re.search(metric_regex("validation_loss"), metric_line("validation_loss", value))


def test_definitions_keep_sagemakers_limits() -> None:
    definitions = metric_definitions()

    assert len(definitions) <= 40
    assert all(len(d["Name"]) <= 255 and len(d["Regex"]) <= 500 for d in definitions)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="accuracy"):
        metric_line("accuracy", 1.0)
