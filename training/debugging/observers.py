"""Everything that watches a job, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from training.debugging.config import parse_debug_rules
from training.debugging.hook import build_hook
from training.debugging.live import LiveRules
from training.debugging.operators import OperatorProfiler
from training.debugging.recorder import Recorder, choose_interval
from training.debugging.sampler import Sampler
from training.debugging.series import SeriesWriter
from training.hyperparameters import Hyperparameters
from training.job import Job
from training.observer import LossFacts, Observer, StepFacts

FOLDER = "debugging"  # of a job's output


def build_observer(
    job: Job,
    hyperparameters: Hyperparameters,
    *,
    labels: Sequence[str],
    facts: Mapping[str, Any],
    total_steps: int,
    device: torch.device,
) -> Observer:
    """What the hyperparameters ask for; `facts` are what the series says of the job. Starts threads.

    Raises JobError for rules that do not exist.
    """
    directory = job.output_dir / FOLDER
    hook = build_hook(
        job,
        directory / "smdebug",
        asked=hyperparameters.smdebug,
        interval=hyperparameters.debug_interval,
    )
    if not hyperparameters.debug:
        return hook
    rules = parse_debug_rules(hyperparameters.debug_rules)
    writer = SeriesWriter(directory)
    interval = hyperparameters.debug_interval or choose_interval(total_steps)
    recorder = Recorder(
        writer,
        interval=interval,
        num_classes=len(labels),
        device=device,
        facts={"job": {**facts, "debug_interval": interval}, "labels": list(labels)},
        process_started=psutil.Process().create_time(),
    )
    observers: list[Observer] = [recorder]
    if hyperparameters.profile_steps:
        count = hyperparameters.profile_steps
        observers.append(OperatorProfiler(writer, directory, count=count, total_steps=total_steps))
    if hyperparameters.profile_interval_ms:
        observers.append(Sampler(writer, interval_ms=hyperparameters.profile_interval_ms))
    if rules:
        observers.append(LiveRules(writer, rules, directory, failure_path=job.failure_path))
    return Together([*observers, hook], at_last=writer.close)


class Together(Observer):
    """Several observers as one; the first is the innermost: it starts a step last and ends it first."""

    def __init__(self, observers: Sequence[Observer], *, at_last: Callable[[], None]) -> None:
        self._observers = list(observers)
        self._at_last = at_last

    def watch(self, network: nn.Module) -> None:
        for observer in self._observers:
            observer.watch(network)

    def step_starts(self, step: int) -> None:
        for observer in reversed(self._observers):
            observer.step_starts(step)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        with ExitStack() as phases:
            for observer in reversed(self._observers):
                phases.enter_context(observer.phase(name))
            yield

    def loss_ready(self, facts: LossFacts) -> None:
        for observer in self._observers:
            observer.loss_ready(facts)

    def gradients_ready(self, step: int) -> None:
        for observer in self._observers:
            observer.gradients_ready(step)

    def step_ends(self, facts: StepFacts) -> None:
        for observer in self._observers:
            observer.step_ends(facts)

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        for observer in self._observers:
            observer.evaluated(
                step=step, epoch=epoch, metrics=metrics, log_probabilities=log_probabilities, targets=targets
            )

    def close(self) -> None:
        with ExitStack() as closing:  # what is put there last runs first, and all of it whatever raises
            closing.callback(self._at_last)
            for observer in reversed(self._observers):
                closing.callback(observer.close)
