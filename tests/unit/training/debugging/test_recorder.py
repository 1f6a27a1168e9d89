"""The series says what the training did, and the training is the same with and without it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.watched_training import TRAIN_IMAGES, VALID_IMAGES, debugging_folder, small_network, train_watched
from training.debugging.recorder import choose_interval
from training.debugging.series import EVAL, TRAIN, Series, Tensors, read_series
from training.job import JobError


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Two epochs of three steps, every one recorded."""
    return train_watched(tmp_path_factory.mktemp("recorded"), small_network())[0]


def _facts(series: Series) -> dict[str, object]:
    return {fact.name: fact.value for fact in series.facts}


def _tensors(series: Series, collection: str, mode: str = TRAIN) -> list[Tensors]:
    return [r for r in series.tensors if r.collection == collection and r.mode == mode]


def test_every_step_is_recorded_with_its_loss_and_time(series: Series) -> None:
    steps = [step for step in series.steps if step.mode == TRAIN]

    assert [step.step for step in steps] == list(range(6))
    assert [step.epoch for step in steps] == [0, 0, 0, 1, 1, 1]
    for step in steps:
        assert step.images == 8 and math.isfinite(step.loss) and 0 <= step.accuracy <= 1
        phases = {k: v for k, v in step.seconds.items() if k not in ("total", "record")}
        assert set(phases) == {"data", "transfer", "augment", "forward", "backward", "optimizer", "other"}
        assert sum(phases.values()) == pytest.approx(step.seconds["total"], rel=1e-3)
        assert step.seconds["record"] > 0


def test_epoch_of_the_series_has_the_loss_the_job_reports(tmp_path: Path) -> None:
    series, progress = train_watched(tmp_path, small_network())

    first = [step.loss for step in series.steps if step.mode == TRAIN and step.epoch == 0]
    passes = [step for step in series.steps if step.mode == EVAL]
    assert np.mean(first) == pytest.approx(progress.history[0]["train_loss"], rel=1e-4)
    assert [p.loss for p in passes] == pytest.approx(
        [entry["validation_loss"] for entry in progress.history], rel=1e-4
    )
    assert all(p.seconds["total"] > 0 and p.images == VALID_IMAGES for p in passes)


def test_weights_of_the_first_step_are_those_before_any_update(series: Series) -> None:
    network = small_network()

    recorded = _tensors(series, "weights")[0]

    assert recorded.step == 0
    assert set(recorded.values) == {"0.weight", "1.weight", "5.weight"}
    weight = network[0].weight
    assert isinstance(weight, nn.Parameter)
    assert recorded.values["0.weight"]["mean"] == pytest.approx(weight.mean().item(), rel=1e-4, abs=1e-7)
    assert set(_tensors(series, "biases")[0].values) == {"0.bias", "1.bias", "5.bias"}


def test_collections_have_smdebugs_names(series: Series) -> None:
    assert "gradient/0.weight" in _tensors(series, "gradients")[0].values
    assert set(_tensors(series, "activations")[0].values) == {"2_output_0"}
    assert set(_tensors(series, "inputs")[0].values) == {"input_0"}
    assert _tensors(series, "updates")[0].values["5.weight"]["ratio"] > 0
    assert _facts(series)["layers"]["2"] == "ReLU"  # type: ignore[index]


def test_predictions_count_every_image_once(series: Series) -> None:
    counted = {mode: [p for p in series.predictions if p.mode == mode] for mode in (TRAIN, EVAL)}

    assert [np.sum(p.confusion) for p in counted[TRAIN]] == [TRAIN_IMAGES] * 2
    assert [np.sum(p.confusion) for p in counted[EVAL]] == [VALID_IMAGES] * 2


def test_evaluation_is_seen_once_per_pass(series: Series) -> None:
    assert [record.step for record in _tensors(series, "activations", EVAL)] == [3, 6]


def test_facts_tell_start_and_end(series: Series) -> None:
    facts = _facts(series)

    assert facts["ended"] == "closed"
    assert facts["initialization_seconds"] > 0  # type: ignore[operator]
    assert facts["labels"] == ["dark", "light"]


def test_watching_changes_no_bit(tmp_path: Path) -> None:
    settings = {"profile_steps": "2", "profile_interval_ms": "20", "debug_rules": "all"}
    watched, alone = small_network(), small_network()

    train_watched(tmp_path, watched, settings)
    train_watched(tmp_path, alone, watched=False)

    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert not any(module._forward_hooks for module in watched.modules())


def test_only_every_nth_step_has_tensors(tmp_path: Path) -> None:
    series, _ = train_watched(tmp_path, small_network(), {"debug_interval": "4"})

    assert [record.step for record in _tensors(series, "gradients")] == [0, 4]
    assert len([step for step in series.steps if step.mode == TRAIN]) == 6


def test_loss_that_is_not_finite_is_the_last_thing_recorded(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        network.get_parameter("5.weight")[0, 0] = math.nan

    with pytest.raises(JobError, match="loss is nan"):
        train_watched(tmp_path, network)

    series = read_series(debugging_folder(tmp_path))
    assert math.isnan(series.steps[-1].loss)
    assert _tensors(series, "weights")[-1].values["5.weight"]["nan"] == 1


def test_units_that_never_fire_are_counted(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        network.get_parameter("1.bias")[:6] = -1e6  # six of eight channels

    series, _ = train_watched(tmp_path, network, {"epochs": "1"})

    assert _tensors(series, "activations")[0].values["2_output_0"]["inactive_0"] == pytest.approx(0.75)


def test_flat_part_of_a_sigmoid_is_counted(tmp_path: Path) -> None:
    network = small_network(nn.Sigmoid())
    with torch.no_grad():
        network.get_parameter("1.bias")[:2] = 1000.0

    series, _ = train_watched(tmp_path, network, {"epochs": "1"})

    values = _tensors(series, "activations")[0].values["2_input_0"]
    assert values["inactive_1"] == pytest.approx(0.25)
    assert (values["low"], values["high"]) == (-23.0, 16.99999)


def test_step_in_several_parts_is_one_step(tmp_path: Path) -> None:
    series, _ = train_watched(tmp_path, small_network(), {"micro_batch": "3"})

    steps = [step for step in series.steps if step.mode == TRAIN]
    assert [step.step for step in steps] == list(range(6))
    assert [list(record.values) for record in _tensors(series, "activations")] == [["2_output_0"]] * 6


@pytest.mark.parametrize(
    ("total_steps", "interval"),
    [
        pytest.param(3, 1, id="few steps"),
        pytest.param(100, 5, id="short"),
        pytest.param(1000, 20, id="default"),
        pytest.param(100_000, 500, id="long"),
    ],
)
def test_interval_follows_the_length_of_the_job(total_steps: int, interval: int) -> None:
    assert choose_interval(total_steps) == interval
