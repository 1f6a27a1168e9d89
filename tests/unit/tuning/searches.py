"""A search as it may have gone, for tests."""

from __future__ import annotations

from typing import Any

from tuning.results import Results, Trial

RANGES: dict[str, dict[str, Any]] = {
    "learning_rate": {"type": "continuous", "low": 0.001, "high": 0.1, "scale": "logarithmic"},
    "batch_size": {"type": "categorical", "values": [16, 64]},
    "epochs": {"type": "integer", "low": 2, "high": 4, "scale": "linear"},
}
SCORES = (0.71, 0.84, 0.62, None, 0.93, 0.55, 0.90)


def make_trial(number: int, score: float | None, **changes: Any) -> Trial:
    """One whose score grew by epochs."""
    values: dict[str, Any] = {
        "number": number,
        "state": "completed" if score is not None else "failed",
        "parameters": {
            "learning_rate": 0.001 * 2**number / 2,
            "batch_size": (16, 64)[number % 2],
            "epochs": 3,
        },
        "objective": score,
        "reason": "" if score is not None else "algo-1: The training loss is <nan>.",
        "curve": tuple({"validation_top1_accuracy": (score or 0) - 0.1 * left} for left in (2, 1, 0)),
        "epochs": 3,
        "seconds": 60.0,
        "started": 1e9 + number,
        "job": f"trials/{number:03d}",
    }
    return Trial(**{**values, **changes})


def make_results(**changes: Any) -> Results:
    """Seven trials: one failed, one was stopped."""
    trials = [make_trial(number, score) for number, score in enumerate(SCORES, start=1)]
    stopped = {"state": "stopped", "reason": "0.55 after epoch 1", "curve": trials[5].curve[:1]}
    trials[5] = make_trial(6, 0.55, **stopped)
    values: dict[str, Any] = {
        "name": "dogs",
        "place": "this machine",
        "objective": "validation_top1_accuracy",
        "direction": "maximize",
        "strategy": "Bayesian",
        "early_stopping": "Auto",
        "max_jobs": 7,
        "max_parallel_jobs": 2,
        "ranges": RANGES,
        "fixed": {"architecture": "cnn", "seed": "3"},
        "seconds": 420.0,
        "machines": "1 process",
        "trials": tuple(trials),
    }
    return Results(**{**values, **changes})
