"""Learning curves from what trials print."""

from __future__ import annotations

from training.metrics import metric_line
from tuning.curves import read_curve


def epoch_lines(loss: float, best: float) -> list[str]:
    """As training/loop.py prints an epoch."""
    values = {
        "images_per_second": 100.0,
        "train_loss": 1.0,
        "validation_loss": loss,
        "best_validation_loss": best,
    }
    return [metric_line(name, value) for name, value in values.items()]


def losses(*lines: str) -> list[float | None]:
    """validation_loss of each epoch that a log shows."""
    return [row.get("validation_loss") for row in read_curve("\n".join(lines))]


def test_each_epoch_is_a_row_and_the_last_words_belong_to_the_last() -> None:
    log = ["starting", *epoch_lines(0.9, 0.9), *epoch_lines(1.1, 0.9), "2026 INFO checkpoint=x"]
    log += [metric_line("test_loss", 0.8), metric_line("best_validation_loss", 0.9)]

    curve = read_curve("\n".join(log))

    assert [row["validation_loss"] for row in curve] == [0.9, 1.1]
    assert curve[-1]["test_loss"] == 0.8 and "test_loss" not in curve[0]
    assert all(row["best_validation_loss"] == 0.9 for row in curve)


def test_resumed_job_replaces_what_it_runs_again() -> None:
    log = [
        *epoch_lines(3.0, 3.0),
        *epoch_lines(2.0, 2.0),
        "INFO resumed epoch=1 step=4",
        *epoch_lines(1.5, 1.5),
    ]

    assert losses(*log) == [3.0, 1.5]


def test_value_that_is_not_finite_is_missing_from_its_epoch_only() -> None:
    log = [*epoch_lines(3.0, 3.0), *epoch_lines(float("nan"), 3.0), *epoch_lines(1.0, 1.0)]

    assert losses(*log) == [3.0, None, 1.0]


def test_epoch_under_way_has_no_value_yet() -> None:
    assert losses(*epoch_lines(3.0, 3.0), metric_line("images_per_second", 5.0)) == [3.0, None]
    assert losses() == []
