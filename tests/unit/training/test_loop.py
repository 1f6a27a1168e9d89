"""The loop learns, repeats itself bit for bit, and resumes bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.hyperparameters import Hyperparameters
from training.job import JobError
from training.loop import Progress, Session, best_metrics, build_optimizer, train, use_bf16
from training.network import freeze_backbone

SIDE = 32
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)
SETTINGS: dict[str, Any] = {
    "architecture": "cnn", "image_size": SIDE, "resize": SIDE, "batch_size": 8, "epochs": 3,
    "learning_rate": 0.02, "precision": "fp32",
}  # fmt: skip


def _images(count: int, seed: int) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, SIDE, SIDE, 3)) + 100 * targets[:, None, None, None]
    folder = ImageFolder(
        root=Path("none"),
        labels=("dark", "light"),
        paths=tuple(f"{index}.png" for index in range(count)),
        targets=targets.astype(np.int64),
    )
    return ImageSet(folder=folder, pixels=pixels.astype(np.uint8), fingerprint="", unreadable=())


def _session(
    *,
    save: Callable[[dict[str, Any], int], None] = lambda state, step: None,
    stopped: Callable[[], bool] = lambda: False,
    valid: bool = True,
    **changes: Any,
) -> Session:
    hyperparameters = Hyperparameters(**(SETTINGS | changes))
    torch.manual_seed(hyperparameters.seed)
    network = build_network(hyperparameters.architecture, 2, dropout=hyperparameters.dropout)
    if hyperparameters.freeze_backbone:
        freeze_backbone(network)
    return Session(
        network=PixelNetwork(network, PREPROCESS),
        hyperparameters=hyperparameters,
        train=_images(44, 0),
        valid=_images(20, 1) if valid else None,
        device=torch.device("cpu"),
        bf16=use_bf16(hyperparameters.precision, torch.device("cpu")),
        save=save,
        stopped=stopped,
    )


def _weights(session: Session) -> dict[str, torch.Tensor]:
    return session.network.network.state_dict()


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The machine's other load must not change how work is split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_brightness_is_learnt() -> None:
    progress = train(_session(), None)

    assert [entry["epoch"] for entry in progress.history] == [1, 2, 3]
    assert progress.best["validation_top1_accuracy"] == 1.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_batch_is_overfitted_to_nearly_zero_loss(precision: str) -> None:
    session = _session(epochs=40, batch_size=44, augmentation="none", weight_decay=0.0, precision=precision)

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
    sessions = [_session(epochs=1, seed=seed, **changes) for seed in (5, 5, 6)]

    for session in sessions:
        train(session, None)

    assert _same(_weights(sessions[0]), _weights(sessions[1]))
    assert not _same(_weights(sessions[0]), _weights(sessions[2]))


@pytest.mark.parametrize("killed_after", [1, 4, 6, 11])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="sgd"),
        pytest.param({"optimizer": "adamw", "learning_rate": 1e-3, "precision": "bf16"}, id="adamw bf16"),
        pytest.param({"architecture": "resnet18", "dropout": 0.5, "freeze_backbone": True}, id="frozen"),
    ],
)
def test_resumed_job_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any], killed_after: int
) -> None:
    uninterrupted = _session(**changes)
    expected = train(uninterrupted, None)
    path = tmp_path / "state.pt"

    class Killed(Exception):
        pass

    def save_then_die(state: dict[str, Any], step: int) -> None:
        if step == killed_after:
            torch.save(state, path)
            raise Killed

    with pytest.raises(Killed):
        train(_session(save=save_then_die, checkpoint_steps=1, **changes), None)
    resumed = _session(checkpoint_steps=1, **changes)
    progress = train(resumed, torch.load(path, weights_only=True))

    assert _same(_weights(resumed), _weights(uninterrupted))
    assert progress.history == expected.history


def test_stop_ends_after_the_step_and_saves_it() -> None:
    saved: list[int] = []
    calls = iter(range(100))
    session = _session(save=lambda state, step: saved.append(step), stopped=lambda: next(calls) >= 4)

    progress = train(session, None)

    assert saved == [progress.step]
    assert 0 < progress.step < 6 and progress.history == []


def test_stop_during_the_evaluation_is_resumed_with_it() -> None:
    saved: list[dict[str, Any]] = []
    calls = iter(range(1000))
    session = _session(
        save=lambda state, step: saved.append(copy.deepcopy(state)), stopped=lambda: next(calls) >= 7
    )  # 1 call before the epoch, 6 after its steps: the next is the evaluation's

    stopped = train(session, None)
    resumed = _session()
    progress = train(resumed, saved[-1])

    assert stopped.history == [] and stopped.step == 6
    uninterrupted = _session()
    assert progress.history == train(uninterrupted, None).history
    assert _same(_weights(resumed), _weights(uninterrupted))


def test_loss_that_is_not_finite_stops_before_the_optimizer_step() -> None:
    session = _session(learning_rate=100.0, warmup_epochs=0.0, epochs=30)

    with pytest.raises(JobError, match=r"The training loss is (nan|inf) at epoch \d+, step \d+: lower"):
        train(session, None)

    assert all(torch.isfinite(parameter).all() for parameter in session.network.parameters())


def test_best_epochs_weights_are_kept_not_the_last() -> None:
    saved: list[dict[str, Any]] = []
    session = _session(save=lambda state, step: saved.append(state), epochs=4, learning_rate=0.3)

    progress = train(session, None)

    best_epoch = max(
        progress.history,
        key=lambda e: (e["validation_top1_accuracy"], -e["validation_loss"], e["epoch"]),
    )
    assert progress.best == best_epoch
    assert _same(_weights(session), progress.best_weights)


def test_without_validation_the_last_epoch_is_exported() -> None:
    session = _session(valid=False)

    progress = train(session, None)

    assert progress.best == progress.history[-1]
    assert best_metrics(progress.history) == {}


def test_frozen_backbone_does_not_move() -> None:
    session = _session(architecture="resnet18", freeze_backbone=True)
    before = {name: tensor.clone() for name, tensor in _weights(session).items()}

    train(session, None)

    moved = {name for name, tensor in _weights(session).items() if not torch.equal(tensor, before[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    session = _session()
    decayed, plain = build_optimizer(session.network, session.hyperparameters).param_groups

    assert decayed["weight_decay"] > 0 == plain["weight_decay"]
    assert {parameter.ndim for parameter in plain["params"]} == {1}


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_a_runt() -> None:
    from training.loop import _epoch_batches

    batches = _epoch_batches(45, Hyperparameters(**SETTINGS), epoch=0)

    assert sorted(np.concatenate(batches).tolist()) == list(range(45))
    assert {len(batch) for batch in batches} == {7, 8}


def test_empty_history_has_no_best_metrics() -> None:
    assert best_metrics(Progress().history) == {}
