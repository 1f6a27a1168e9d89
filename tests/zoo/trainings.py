"""Trainings that are ill in one way each, through the real loop and recorder; and the rules that look on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artifact.network import PixelNetwork
from artifact.preprocess import Preprocess
from training.data import ImageFolder, ImageSet
from training.debugging.observers import Together
from training.debugging.recorder import Recorder
from training.debugging.rules import RULES, RuleSettings, evaluate
from training.debugging.series import Series, SeriesWriter, read_series
from training.hyperparameters import parse_hyperparameters
from training.job import JobError
from training.loop import Session, train
from training.observer import Observer, StepFacts

SIDE, CLASSES = 16, 3
HEALTHY = {
    "image_size": str(SIDE), "resize": str(SIDE), "batch_size": "16", "epochs": "6", "precision": "fp32",
    "learning_rate": "0.01", "augmentation": "none", "warmup_epochs": "0.5", "label_smoothing": "0.1",
}  # fmt: skip
JUDGED_EVERY = 5  # steps
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)

Weights = Callable[[nn.Sequential], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What to train, on what, and what goes wrong in it."""

    network: Callable[[], nn.Module]
    settings: Mapping[str, str] = field(default_factory=dict)
    counts: tuple[int, ...] = (32, 32, 32)  # training images of each class
    noise: float = 40.0
    are_labels_random: bool = False
    alike: bool = False  # the last two classes
    preprocess: Preprocess = PREPROCESS
    observers: Callable[[nn.Module], list[Observer]] = lambda network: []


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The stored series, and per rule whether it ever fired while the training ran."""

    series: Series
    directory: Path
    fired_live: frozenset[str]


class Judge(Observer):
    """Asks all rules every few steps and after every validation pass, as a job's live rules do."""

    def __init__(self, writer: SeriesWriter, rules: list[RuleSettings]) -> None:
        self._writer = writer
        self._rules = rules
        self.fired: set[str] = set()

    def step_ends(self, facts: StepFacts) -> None:
        if facts.step % JUDGED_EVERY == 0:
            self.judge()

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        self.judge()

    def judge(self) -> None:
        """Now."""
        verdicts = evaluate(self._writer.snapshot(), self._rules)
        self.fired |= {verdict.rule for verdict in verdicts if verdict.fired}


class Spoiler(Observer):
    """Makes one gradient NaN at a step."""

    def __init__(self, network: nn.Module, step: int) -> None:
        self._parameter = next(network.parameters())
        self._step = step

    def gradients_ready(self, step: int) -> None:
        if step == self._step and self._parameter.grad is not None:
            self._parameter.grad[0] = float("nan")


class Ascent(Observer):
    """Turns the gradients round from a step on: the loss is climbed."""

    def __init__(self, network: nn.Module, step: int) -> None:
        self._network = network
        self._step = step

    def gradients_ready(self, step: int) -> None:
        for parameter in self._network.parameters() if step >= self._step else ():
            if parameter.grad is not None:
                parameter.grad.neg_()


def run_training(training: Training, directory: Path, rules: list[RuleSettings]) -> Outcome:
    """Train, judging live by `rules`; a loss that is not finite ends it as it ends a job."""
    torch.manual_seed(0)
    network = training.network()
    hyperparameters = parse_hyperparameters(HEALTHY | dict(training.settings))
    train_set = draw_images(training, training.counts, seed=1)
    steps = -(-len(train_set) // hyperparameters.batch_size)
    writer = SeriesWriter(directory)
    recorder = Recorder(
        writer,
        interval=2,
        num_classes=CLASSES,
        device=torch.device("cpu"),
        facts={
            "job": {"epochs": hyperparameters.epochs, "steps_per_epoch": steps, "device": "cpu"},
            "labels": list(train_set.folder.labels),
        },
        process_started=time.time(),
    )
    judge = Judge(writer, rules)
    session = Session(
        network=PixelNetwork(network, training.preprocess),
        hyperparameters=hyperparameters,
        train=train_set,
        valid=draw_images(training, (16,) * CLASSES, seed=2),
        device=torch.device("cpu"),
        bf16=False,
        save=lambda state, step: None,
        stopped=lambda: False,
        observer=Together([recorder, judge, *training.observers(network)], at_last=writer.close),
    )
    with suppress(JobError), closing(session.observer):
        train(session, None)
    judge.judge()
    return Outcome(series=read_series(directory), directory=directory, fired_live=frozenset(judge.fired))


def draw_images(training: Training, counts: tuple[int, ...], *, seed: int) -> ImageSet:
    """A class is the colour of a bright quarter; the rest is the mean of ImageNet, so inputs centre on 0."""
    random = np.random.default_rng(seed)
    targets = np.repeat(np.arange(CLASSES), counts)
    pixels = np.tile(np.array([124.0, 116.0, 104.0]), (len(targets), SIDE, SIDE, 1))
    for index, target in enumerate(targets):
        colour = min(int(target), 1) if training.alike else int(target)
        pixels[index, : SIDE // 2, : SIDE // 2, colour] += 90
        pixels[index, SIDE // 2 :, SIDE // 2 :, colour] -= 90
    pixels += random.normal(0, training.noise, pixels.shape)
    if training.are_labels_random:
        targets = random.permutation(targets)
    folder = ImageFolder(
        root=Path("none"),
        labels=("red", "green", "blue"),
        paths=tuple(f"{index}.png" for index in range(len(targets))),
        targets=targets.astype(np.int64),
    )
    return ImageSet(folder=folder, pixels=pixels.clip(0, 255).astype(np.uint8), fingerprint="", unreadable=())


def convolutional(change: Weights | None = None) -> Callable[[], nn.Module]:
    """Two convolutions with batch norm, He's initialisation; `change` spoils it."""

    def build() -> nn.Module:
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 16, CLASSES),
        )
        if change:
            with torch.no_grad():
                change(network)
        return network

    return build


def plain(
    *, scale: float = 1.0, activation: type[nn.Module] = nn.ReLU, depth: int = 2
) -> Callable[[], nn.Module]:
    """Linear layers without batch norm; He's initial weights times `scale`."""

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = 3 * SIDE * SIDE
        for _ in range(depth):
            layers += [nn.Linear(width, 32), activation()]
            width = 32
        network = nn.Sequential(*layers, nn.Linear(width, CLASSES))
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
                layer.weight.data *= scale
        return network

    return build


class Detached(nn.Module):
    """A network whose first convolution no gradient reaches: somebody left a detach() in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.rest = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.first(images).detach())
        return logits


def ask(rule: str, parameters: Mapping[str, str] | None = None) -> RuleSettings:
    """A rule with parameters as strings; it must exist."""
    assert rule in RULES
    return RuleSettings(name=rule, parameters=dict(parameters or {}))
