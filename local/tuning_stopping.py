"""Which trials to stop: the rule of SageMaker's early stopping (automatic-model-tuning-early-stopping).

"Compute the running average of the objective metric for all previous training jobs up to the same epoch, and
then compute the median of all of the running averages. If the value of the objective metric for the current
training job is worse than the median [...], SageMaker stops the current training job."
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

Values = Mapping[int, float]  # epoch, from 1 -> objective


def median_of_running_averages(previous: Sequence[Values], epoch: int) -> float | None:
    """Of the previous trials that came so far; None where none did."""
    averages = [
        statistics.fmean(value for at, value in values.items() if at <= epoch)
        for values in previous
        if values and max(values) >= epoch
    ]
    return statistics.median(averages) if averages else None


def reason_to_stop(values: Values, previous: Sequence[Values], *, objective: str, is_maximized: bool) -> str:
    """A sentence where the newest value is worse than the others' median, else nothing."""
    if not values:
        return ""
    epoch = max(values)
    median = median_of_running_averages(previous, epoch)
    if median is None or math.isclose(values[epoch], median):  # an average of equals is off by rounding
        return ""
    if values[epoch] > median if is_maximized else values[epoch] < median:
        return ""
    return (
        f"{objective}={values[epoch]:.4f} after epoch {epoch}; the median of the earlier trials' running "
        f"averages was {median:.4f}"
    )
