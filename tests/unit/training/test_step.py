"""What each training method does to a step and to the weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.training.sessions import make_session, one_thread, weights_of
from training.distributed import Place, World
from training.evaluate import cross_entropy
from training.job import JobError
from training.loop import build_optimizer, train
from training.memory import is_out_of_memory
from training.network import find_blocks
from training.observer import Observer, StepFacts
from training.schedule import set_learning_rate
from training.session import Session, weigh_classes

__all__ = ["one_thread"]
REPOSITORY = Path(__file__).parents[3]
# One step without momentum, decay and warm-up: the weights move by rate x gradient.
ONE_STEP: dict[str, Any] = {
    "epochs": 1, "batch_size": 44, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0,
    "schedule": "constant",
}  # fmt: skip


class Recorder(Observer):
    """Weights after each step, and the steps' facts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.weights: list[dict[str, Tensor]] = []
        self.facts: list[StepFacts] = []

    def step_ends(self, facts: StepFacts) -> None:
        self.facts.append(facts)
        self.weights.append({name: tensor.clone() for name, tensor in weights_of(self.session).items()})


def _record(**settings: Any) -> tuple[Session, Recorder]:
    session = make_session(**settings)
    recorder = Recorder(session)
    train(replace(session, observer=recorder), None)
    return session, recorder


def _distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    learnt = [name for name in first if "running" not in name and "tracked" not in name]
    return float(torch.cat([(first[name] - second[name]).flatten() for name in learnt]).norm())


def test_clip_norm_bounds_the_step() -> None:
    free, clipped = (_record(**ONE_STEP, clip_norm=norm) for norm in (0.0, 0.05))
    before = weights_of(make_session(**ONE_STEP))

    assert _distance(free[1].weights[0], before) > 0.02 * 0.05 * 2
    assert _distance(clipped[1].weights[0], before) == pytest.approx(0.02 * 0.05, rel=1e-3)


def test_average_of_the_weights_is_what_is_judged_and_exported() -> None:
    session, recorder = _record(ema_decay=0.9, valid=False, epochs=2)

    average = recorder.weights[0]
    for step, current in enumerate(recorder.weights[1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = {
            name: decay * tensor + (1 - decay) * current[name]
            if tensor.is_floating_point()
            else current[name]
            for name, tensor in average.items()
        }
    exported = weights_of(session)
    assert all(torch.allclose(exported[name], average[name], atol=1e-6) for name in average)
    assert _distance(exported, recorder.weights[-1]) > 1e-3


def test_blocks_join_the_head_one_after_another() -> None:
    session, recorder = _record(unfreeze_epochs=2, epochs=3)
    start = weights_of(make_session())

    def moved(after_epoch: int) -> set[str]:
        weights = recorder.weights[6 * after_epoch - 1]
        return {name for name, tensor in weights.items() if not torch.equal(tensor, start[name])}

    blocks = find_blocks(session.network.network)
    assert blocks == ["stem", "stages.0", "stages.1", "stages.2", "fc"]
    assert moved(1) == {"fc.weight", "fc.bias"}
    assert {name.rsplit(".", 2)[0].split(".conv")[0].split(".short")[0] for name in moved(2)} >= {"stages.2"}
    assert not any(name.startswith(("stem", "stages.0")) for name in moved(2))
    assert moved(3) == set(start)


def test_blocks_learn_at_their_share_of_the_rate() -> None:
    session = make_session(layer_decay=0.5)
    optimizer = build_optimizer(session.network, session.hyperparameters)

    rate = set_learning_rate(optimizer, session.hyperparameters, 100, 6)

    rates = {id(p): group["lr"] / rate for group in optimizer.param_groups for p in group["params"]}
    expected = {"fc": 1.0, "stages.2": 0.5, "stages.1": 0.25, "stages.0": 0.125, "stem": 0.0625}
    for name, parameter in session.network.network.named_parameters():
        block = next(path for path in expected if name.startswith(path))
        assert rates[id(parameter)] == pytest.approx(expected[block]), name


@pytest.mark.parametrize(
    ("architecture", "first", "last"),
    [
        ("resnet18", "conv1", "layer4.1"),
        ("mobilenet_v3_small", "features.0", "classifier.0"),
        ("squeezenet1_1", "features.0", "features.12"),
    ],
)
def test_blocks_go_from_the_input_to_the_head(architecture: str, first: str, last: str) -> None:
    blocks = find_blocks(make_session(architecture=architecture).network.network)

    assert (blocks[0], blocks[-2]) == (first, last)
    assert len(blocks) == len(set(blocks))


def test_patience_ends_a_job_that_gets_no_better() -> None:
    session = make_session(epochs=30, patience=2, learning_rate=0.3)

    progress = train(session, None)

    assert progress.epoch == min(30, progress.best["epoch"] + 2)
    assert progress.epoch < 30


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(JobError, match="patience=2 needs a validation channel"):
        train(make_session(patience=2, valid=False), None)


def test_balanced_weights_make_classes_count_alike() -> None:
    session = make_session(class_weights="balanced")
    folder = replace(session.train.folder, targets=np.array([0] * 40 + [1] * 4))
    session = replace(session, train=replace(session.train, folder=folder))
    logits, targets = torch.zeros(44, 2), torch.from_numpy(folder.targets)

    weights = weigh_classes(session)

    assert weights is not None and weights.tolist() == pytest.approx([0.55, 5.5])
    assert (weights[targets] * (targets == 0)).sum() == pytest.approx(22.0)
    assert cross_entropy(logits, targets, 0.1, class_weights=weights) == pytest.approx(np.log(2))


def test_class_weights_change_what_is_learnt_of_a_rare_class() -> None:
    recalls = {}
    for weighting in ("none", "balanced"):
        session = make_session(class_weights=weighting, epochs=1)
        rare = np.flatnonzero(session.train.folder.targets == 1)[3:]
        keep = np.setdiff1d(np.arange(44), rare)
        folder = replace(
            session.train.folder,
            targets=session.train.folder.targets[keep],
            paths=tuple(np.array(session.train.folder.paths)[keep]),
        )
        train_set = replace(session.train, folder=folder, pixels=session.train.pixels[keep])
        session = replace(session, train=train_set, valid=None)
        train(session, None)
        bias = session.network.network.get_submodule("fc").bias
        assert isinstance(bias, Tensor)
        recalls[weighting] = float((bias[1] - bias[0]).detach())

    assert recalls["balanced"] > recalls["none"]


def test_mixed_pictures_are_learnt_with_both_labels() -> None:
    plain, mixed = (_record(**ONE_STEP, augmentation="none", cutmix=cutmix)[1] for cutmix in (0.0, 1.0))

    assert not torch.equal(plain.facts[0].inputs, mixed.facts[0].inputs)
    assert torch.equal(plain.facts[0].targets, mixed.facts[0].targets)
    # Every pixel of a mixed batch is a pixel of the plain one: of the picture itself or of its partner.
    partners = plain.facts[0].inputs.roll(1, 0)
    kept = mixed.facts[0].inputs == plain.facts[0].inputs
    assert bool((kept | (mixed.facts[0].inputs == partners)).all())


@pytest.mark.parametrize(
    "settings",
    [{}, {"mixup": 0.4}, {"cutmix": 1.0, "class_weights": "balanced", "augmentation": "aerial"}],
    ids=["plain", "mixup", "cutmix"],
)
def test_parts_of_a_batch_add_up_to_the_batch(settings: dict[str, Any]) -> None:
    # A frozen backbone's batch norms do not look at the batch.
    frozen = ONE_STEP | {"freeze_backbone": True, "epochs": 2}
    whole, parts = (_record(**frozen, **settings, micro_batch=size) for size in (0, 5))

    assert _distance(weights_of(whole[0]), weights_of(parts[0])) < 1e-6
    assert whole[1].facts[1].loss == pytest.approx(parts[1].facts[1].loss, rel=1e-5)
    assert len(parts[1].facts[0].inputs) == 4  # 44 in 9 nearly equal parts


def test_shares_of_two_ranks_are_mixed_like_the_whole_batch() -> None:
    """Partners come from the whole batch, so that a picture's mix does not depend on the ranks."""
    whole = _record(**ONE_STEP, mixup=0.4)[1].facts[0].inputs

    class Share(World):
        """A rank that hears nothing from the other."""

        def sum(self, values: Any) -> Any:
            return values

        def merge_step(self, network: torch.nn.Module, *, weight: float) -> None: ...

    for rank in (0, 1):
        world = Share(Place(hosts=("a", "b"), host_index=rank))
        session = replace(make_session(**ONE_STEP, mixup=0.4, valid=False), world=world)
        recorder = Recorder(session)
        train(replace(session, observer=recorder), None)

        assert torch.equal(recorder.facts[0].inputs, whole[rank::2])


MEMORY_SCRIPT = """
import resource, sys
from tests.unit.training.sessions import make_session, weights_of
import torch
from training.loop import train
torch.set_num_threads(1)
settings = dict(image_size=96, resize=96, batch_size=44, epochs=1, freeze_backbone=True, augmentation="none",
                precision="fp32")
train(make_session(**settings, micro_batch=2), None)  # what is loaded lazily, is
free = make_session(**settings)
train(free, None)
session = make_session(**settings)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
progress = train(session, None)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
pairs = zip(weights_of(free).values(), weights_of(session).values())
difference = max(float((a - b).abs().max()) for a, b in pairs)
print(progress.micro_batch, difference)
"""


def test_out_of_memory_ends_in_smaller_parts_and_the_same_weights() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, "8"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    micro_batch, difference = done.stdout.split()[-2:]
    assert 2 <= int(micro_batch) <= 22
    assert float(difference) < 1e-5
    assert "batch_size stays" in done.stderr


def test_memory_for_not_even_two_pictures_fails_with_a_hint() -> None:
    class Greedy(Observer):
        def phase(self, name: str) -> Any:
            if name == "forward":
                torch.empty(2**60, dtype=torch.uint8)
            return super().phase(name)

    with pytest.raises(JobError, match=r"Memory does not suffice for [23] images at once .*lower image_size"):
        train(replace(make_session(), observer=Greedy()), None)


def test_failed_try_leaves_no_trace_in_batch_norm() -> None:
    class FullOnce(Observer):
        """The allocator's own error, after the first layers have moved their statistics."""

        tries = 0

        def phase(self, name: str) -> Any:
            self.tries += name == "backward"
            if name == "backward" and self.tries == 1:
                torch.empty(2**60, dtype=torch.uint8)
            return super().phase(name)

    failed, told = make_session(), make_session(micro_batch=4)
    progress = train(replace(failed, observer=FullOnce()), None)
    train(told, None)

    assert progress.micro_batch == 4
    assert all(
        torch.equal(a, b) for a, b in zip(weights_of(failed).values(), weights_of(told).values(), strict=True)
    )


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(MemoryError())
