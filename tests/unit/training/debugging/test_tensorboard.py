"""TensorBoard's own reader finds the series."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.watched_training import small_network, train_watched
from training.debugging.series import TRAIN
from training.debugging.tensorboard import main


def test_tensorboard_reads_scalars_and_histograms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series, _ = train_watched(tmp_path / "run", small_network(), {"profile_interval_ms": "20"})

    code = main([str(tmp_path / "run"), "--output", str(tmp_path / "events")])

    assert (code, capsys.readouterr().out.splitlines()[-1]) == (0, str(tmp_path / "events"))
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    recorded = [step for step in series.steps if step.mode == TRAIN]
    read = [(event.step, event.value) for event in events.Scalars("loss/train")]
    assert read == [(step.step, pytest.approx(step.loss)) for step in recorded]
    histograms = events.Histograms("weights/0.weight")
    assert [event.step for event in histograms] == list(range(6))
    value = histograms[0].histogram_value
    assert value.num == 216  # 8 x 3 x 3 x 3
    assert sum(value.bucket) == pytest.approx(216)
    assert list(value.bucket_limit) == sorted(value.bucket_limit)
    assert {"gradients/gradient/0.weight", "activations/2_output_0"} <= set(events.Tags()["histograms"])


def test_folder_without_a_series_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
