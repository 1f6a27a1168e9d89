"""The metric lines a training job prints and the regexes that read them back: one definition for both.

SageMaker matches each regex against stdout and stderr and takes the first group (at most 40
definitions per job, regex at most 500 characters: CreateTrainingJob, MetricDefinitionList).
"""

from __future__ import annotations

import math

# name -> what it means; fractions are 0-1. The best_ metrics exist so that a tuning job that compares
# the last value printed and one that compares the best value agree.
METRICS: dict[str, str] = {
    "train_loss": "mean training loss over the epoch",
    "train_top1_accuracy": "top-1 accuracy on the augmented training batches of the epoch",
    "validation_loss": "mean cross-entropy on the validation channel",
    "validation_top1_accuracy": "top-1 accuracy on the validation channel",
    "validation_top5_accuracy": "top-5 accuracy on the validation channel",
    "best_validation_loss": "lowest validation_loss so far",
    "best_validation_top1_accuracy": "highest validation_top1_accuracy so far",
    "images_per_second": "training images per second over the epoch, evaluation not counted",
    "test_loss": "mean cross-entropy on the test channel, once, at the end",
    "test_top1_accuracy": "top-1 accuracy on the test channel, once, at the end",
    "test_top5_accuracy": "top-5 accuracy on the test channel, once, at the end",
}


def metric_line(name: str, value: float) -> str:
    """`metric NAME=VALUE;`, the only form a metric is printed in. KeyError for an unknown name."""
    if name not in METRICS:
        raise KeyError(f"Metric {name!r} is not defined in training/metrics.py.")
    if not math.isfinite(value):
        return f"metric {name} is not finite;"  # must not match the regex: SageMaker cannot store NaN
    return f"metric {name}={value:.6f};"


def metric_regex(name: str) -> str:
    """The regex for CreateTrainingJob's MetricDefinitions; its first group is the value."""
    if name not in METRICS:
        raise KeyError(f"Metric {name!r} is not defined in training/metrics.py.")
    return rf"metric {name}=([-+.0-9e]+);"


def metric_definitions() -> list[dict[str, str]]:
    """CreateTrainingJob's `AlgorithmSpecification.MetricDefinitions`, one entry per metric."""
    return [{"Name": name, "Regex": metric_regex(name)} for name in METRICS]
