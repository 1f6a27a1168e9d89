"""The loop learns, repeats itself bit for bit, and resumes bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.sessions import (
    make_images,
    make_session,
    one_thread,
    same_weights,
    weights_of,
)
from training.job import JobError
from training.loop import Progress, best_metrics, build_optimizer, train

__all__ = ["one_thread"]


def test_brightness_is_learnt() -> None:
    progress = train(make_session(), None)

    assert [entry["epoch"] for entry in progress.history] == [1, 2, 3]
    assert progress.best["validation_top1_accuracy"] == 1.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_batch_is_overfitted_to_nearly_zero_loss(precision: str) -> None:
    session = make_session(
        epochs=40, batch_size=44, augmentation="none", weight_decay=0.0, precision=precision
    )

    progress = train(session, None)

    assert progress.history[-1]["train_loss"] < 0.02


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="fp32"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"architecture": "resnet18", "dropout": 0.5}, id="dropout"),
        pytest.param({"optimizer": "adamw", "learning_rate": 1e-3, "augmentation": "aerial"}, id="adamw"),
    ],
)
def test_same_seed_gives_identical_weights_and_another_seed_others(changes: dict[str, Any]) -> None:
    sessions = [make_session(epochs=1, seed=seed, **changes) for seed in (5, 5, 6)]

    for session in sessions:
        train(session, None)

    assert same_weights(weights_of(sessions[0]), weights_of(sessions[1]))
    assert not same_weights(weights_of(sessions[0]), weights_of(sessions[2]))


@pytest.mark.parametrize("killed_after", [1, 4, 6, 11])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="sgd"),
        pytest.param({"optimizer": "adamw", "learning_rate": 1e-3, "precision": "bf16"}, id="adamw bf16"),
        pytest.param({"architecture": "resnet18", "dropout": 0.5, "freeze_backbone": True}, id="frozen"),
        pytest.param(
            {
                "ema_decay": 0.9,
                "mixup": 0.2,
                "cutmix": 1.0,
                "clip_norm": 0.5,
                "layer_decay": 0.7,
                "unfreeze_epochs": 2,
                "class_weights": "balanced",
                "micro_batch": 3,
                "patience": 2,
            },
            id="all methods",
        ),
    ],
)
def test_resumed_job_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any], killed_after: int
) -> None:
    uninterrupted = make_session(**changes)
    expected = train(uninterrupted, None)
    path = tmp_path / "state.pt"

    class Killed(Exception):
        pass

    def save_then_die(state: dict[str, Any], step: int) -> None:
        if step == killed_after:
            torch.save(state, path)
            raise Killed

    with pytest.raises(Killed):
        train(make_session(save=save_then_die, checkpoint_steps=1, **changes), None)
    resumed = make_session(checkpoint_steps=1, **changes)
    progress = train(resumed, torch.load(path, weights_only=True))

    assert same_weights(weights_of(resumed), weights_of(uninterrupted))
    assert progress.history == expected.history


def test_stop_ends_after_the_step_and_saves_it() -> None:
    saved: list[int] = []
    calls = iter(range(100))
    session = make_session(save=lambda state, step: saved.append(step), stopped=lambda: next(calls) >= 4)

    progress = train(session, None)

    assert saved == [progress.step]
    assert 0 < progress.step < 6 and progress.history == []


def test_stop_during_the_evaluation_is_resumed_with_it() -> None:
    saved: list[dict[str, Any]] = []
    calls = iter(range(1000))
    session = make_session(
        save=lambda state, step: saved.append(copy.deepcopy(state)), stopped=lambda: next(calls) >= 7
    )  # 1 call before the epoch, 6 after its steps: the next is the evaluation's

    stopped = train(session, None)
    resumed = make_session()
    progress = train(resumed, saved[-1])

    assert stopped.history == [] and stopped.step == 6
    uninterrupted = make_session()
    assert progress.history == train(uninterrupted, None).history
    assert same_weights(weights_of(resumed), weights_of(uninterrupted))


def test_loss_that_is_not_finite_stops_before_the_optimizer_step() -> None:
    session = make_session(learning_rate=100.0, warmup_epochs=0.0, epochs=30)

    with pytest.raises(
        JobError, match=r"(The training loss is (nan|inf) at epoch \d+, step \d+|no longer finite): lower"
    ):
        train(session, None)

    assert all(torch.isfinite(parameter).all() for parameter in session.network.parameters())


def test_best_epochs_weights_are_kept_not_the_last() -> None:
    saved: list[dict[str, Any]] = []
    session = make_session(save=lambda state, step: saved.append(state), epochs=4, learning_rate=0.3)

    progress = train(session, None)

    best_epoch = max(
        progress.history,
        key=lambda e: (e["validation_top1_accuracy"], -e["validation_loss"], e["epoch"]),
    )
    assert progress.best == best_epoch
    assert same_weights(weights_of(session), progress.best_weights)


def test_without_validation_the_last_epoch_is_exported() -> None:
    session = make_session(valid=False)

    progress = train(session, None)

    assert progress.best == progress.history[-1]
    assert best_metrics(progress.history) == {}


def test_frozen_backbone_does_not_move() -> None:
    session = make_session(architecture="resnet18", freeze_backbone=True)
    before = {name: tensor.clone() for name, tensor in weights_of(session).items()}

    train(session, None)

    moved = {name for name, tensor in weights_of(session).items() if not torch.equal(tensor, before[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    session = make_session()
    decayed, plain = build_optimizer(session.network, session.hyperparameters).param_groups

    assert decayed["weight_decay"] > 0 == plain["weight_decay"]
    assert {parameter.ndim for parameter in plain["params"]} == {1}


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_a_runt() -> None:
    from training.loop import _epoch_batches

    session = replace(make_session(), train=make_images(45, seed=0))

    batches = _epoch_batches(session, epoch=0)

    assert sorted(np.concatenate(batches).tolist()) == list(range(45))
    assert {len(batch) for batch in batches} == {7, 8}


def test_empty_history_has_no_best_metrics() -> None:
    assert best_metrics(Progress().history) == {}
