"""A trial's learning curve from the lines it printed, by the regexes that SageMaker is given."""

from __future__ import annotations

import re

from training.metrics import METRICS, metric_regex

REGEXES = {name: re.compile(metric_regex(name)) for name in METRICS}
RESUMED = re.compile(r"resumed epoch=(\d+) ")  # training/loop.py; what came later is run again
OF_THE_WHOLE_JOB = ("best_", "test_")


def read_curve(log: str) -> list[dict[str, float]]:
    """The metrics of each epoch. The last one may be incomplete; values of the end are added to it."""
    epochs: list[dict[str, float]] = []
    for line in log.splitlines():
        if resumed := RESUMED.search(line):
            del epochs[int(resumed[1]) :]
        for name, value in _metrics(line):
            again = bool(epochs) and name in epochs[-1] and not name.startswith(OF_THE_WHOLE_JOB)
            if again or not epochs:
                epochs.append({})
            epochs[-1][name] = value
    return epochs


def _metrics(line: str) -> list[tuple[str, float]]:
    if "metric " not in line:
        return []
    return [(name, float(found[1])) for name, regex in REGEXES.items() if (found := regex.search(line))]
