"""The machine's figures, read for real."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from training.debugging.sampler import Machine, Sampler, open_gpus
from training.debugging.series import SeriesWriter, read_series


def test_samples_come_while_the_training_does_something_else(tmp_path: Path) -> None:
    writer = SeriesWriter(tmp_path)
    with closing(writer), closing(Sampler(writer, interval_ms=20)):
        deadline = time.monotonic() + 60
        while len(writer.snapshot().system) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)

    samples = read_series(tmp_path).system
    assert len(samples) >= 3
    assert [sample.time for sample in samples] == sorted(sample.time for sample in samples)
    for sample in samples:
        assert 0 <= sample.values["cpu_percent"] <= 100
        assert 0 < sample.values["memory_percent"] <= 100
        assert sample.values["memory_bytes"] > 20e6
        assert "cpu0_percent" in sample.values


def test_machine_without_a_gpu_has_no_figures_of_one(tmp_path: Path) -> None:
    gpus = open_gpus()
    writer = SeriesWriter(tmp_path)
    with closing(writer), closing(Sampler(writer, interval_ms=20)):
        deadline = time.monotonic() + 60
        while not writer.snapshot().system and time.monotonic() < deadline:
            time.sleep(0.02)

    figures = {name for sample in writer.snapshot().system for name in sample.values if name[:3] == "gpu"}
    assert bool(figures) == bool(gpus)


def test_rate_is_per_second(tmp_path: Path) -> None:
    machine = Machine()
    machine._counted, machine._time = {"network_sent_bytes": 0.0}, time.monotonic() - 10
    sent = machine._count().get("network_sent_bytes", 0.0)

    rate = machine.read().get("network_sent_bytes", 0.0)

    assert rate <= (sent + 1e6) / 10
