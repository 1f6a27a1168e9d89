"""Writes what a training does into its series: every step in a line, its tensors every few steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from training.debugging.activations import FLAT_BEYOND, ActivationHooks, thin_out
from training.debugging.clock import StepClock
from training.debugging.confusion import TrainingConfusion, count_confusion
from training.debugging.reductions import reduce_tensors, reduce_updates, shorten
from training.debugging.series import EVAL, TRAIN, Fact, Predictions, SeriesWriter, Step, Tensors
from training.observer import LossFacts, Observer, StepFacts

MOST_STEPS_BETWEEN = 20  # keeps the cost below 2 % of a step: benchmarks/debugger_overhead.py
LEAST_RECORDINGS = 20  # of a short job, whose cost nobody minds
MOST_RECORDINGS = 200  # of a long one, for the size of its file


def choose_interval(total_steps: int) -> int:
    """Steps between two recordings of tensors, where the hyperparameter debug_interval leaves it open."""
    return max(1, min(MOST_STEPS_BETWEEN, total_steps // LEAST_RECORDINGS), total_steps // MOST_RECORDINGS)


class Recorder(Observer):
    """Feeds a series; changes no bit of the training."""

    def __init__(
        self,
        writer: SeriesWriter,
        *,
        interval: int,
        num_classes: int,
        device: torch.device,
        facts: Mapping[str, Any],
        process_started: float,
        flat_beyond: Mapping[str, tuple[float, float]] = FLAT_BEYOND,
    ) -> None:
        self._writer = writer
        self._interval = interval
        self._facts = dict(facts)
        self._process_started = process_started
        self._on_gpu = device.type == "cuda"
        self._flat_beyond = flat_beyond
        self._clock = StepClock(wait=torch.cuda.synchronize if self._on_gpu else lambda: None)
        self._confusion = TrainingConfusion(num_classes, device)
        self._parameters: dict[str, nn.Parameter] = {}
        self._activations: ActivationHooks | None = None
        self._forward_hook: RemovableHandle | None = None
        self._before: dict[str, Tensor] = {}  # weights from just before the update
        self._collecting = False  # activations: all of a recorded step's, or of an evaluation's first batch
        self._recording = False
        self._has_started = False
        self._evaluation_seconds = 0.0

    def watch(self, network: nn.Module) -> None:
        self._parameters = dict(network.named_parameters())
        layers = {name: type(module).__name__ for name, module in network.named_modules() if name}
        frozen = [name for name, parameter in self._parameters.items() if not parameter.requires_grad]
        own = {"process_started": self._process_started, "layers": layers, "frozen": frozen}
        for name, value in (self._facts | own).items():
            self._say(name, value)
        self._activations = ActivationHooks(
            network,
            is_wanted=lambda: self._collecting,
            watching=self._clock.watching,
            flat_beyond=self._flat_beyond,
        )
        self._forward_hook = network.register_forward_hook(self._forward_ends)

    def step_starts(self, step: int) -> None:
        if not self._has_started:
            self._has_started = True
            self._say("initialization_seconds", shorten(time.time() - self._process_started))
        self._recording = self._collecting = step % self._interval == 0
        # Waiting for a GPU slows it: its phases are measured rarely, and not where tensors are recorded.
        alone = self._interval == 1 or step % self._interval == self._interval // 2
        self._clock.start(with_phases=alone or not self._on_gpu)

    def phase(self, name: str) -> AbstractContextManager[None]:
        return self._clock.phase(name) if self._clock.is_running else self._between_steps(name)

    def loss_ready(self, facts: LossFacts) -> None:
        if math.isfinite(facts.loss):
            return
        self._write_parameters(facts.step)  # the step will not end: this is its last trace
        self._write_step(facts, accuracy=0.0, seconds={})

    def gradients_ready(self, step: int) -> None:
        if not self._recording:
            return
        with self._clock.watching():
            self._write_parameters(step)
            gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
            self._write_tensors(step, "gradients", {f"gradient/{n}": grad for n, grad in gradients.items()})
            self._before = {name: self._parameters[name].detach().clone() for name in gradients}

    def step_ends(self, facts: StepFacts) -> None:
        seconds = self._clock.end()
        with self._clock.watching():
            if self._recording:
                self._write_recording(facts)
            self._confusion.add(facts.logits, facts.targets)
            if self._confusion.is_due:
                self._write_confusion(facts.step)
        self._recording = self._collecting = False
        seconds["record"] = self._clock.watched
        self._write_step(facts, accuracy=shorten(facts.correct / facts.images), seconds=seconds)

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        self._write_confusion(step)  # of the rest of the epoch's training
        assert self._activations is not None
        if values := self._activations.take():
            self._writer.add(Tensors(step=step, mode=EVAL, collection="activations", values=values))
        counts = count_confusion(log_probabilities.argmax(axis=1), targets, log_probabilities.shape[1])
        self._writer.add(Predictions(step=step, mode=EVAL, confusion=counts.tolist()))
        self._writer.add(
            Step(
                step=step,
                epoch=epoch,
                mode=EVAL,
                time=time.time(),
                loss=shorten(metrics["loss"]),
                accuracy=shorten(metrics["top1_accuracy"]),
                images=len(targets),
                seconds={"total": shorten(self._evaluation_seconds)},
            )
        )

    def close(self) -> None:
        if self._activations is not None and self._forward_hook is not None:
            self._activations.remove()
            self._forward_hook.remove()
        self._say("ended", "closed")

    def _forward_ends(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._collecting = False

    @contextmanager
    def _between_steps(self, name: str) -> Iterator[None]:
        """Evaluation and checkpoint: their durations are facts."""
        self._collecting = name == "evaluation"
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._collecting = False
        if name == "evaluation":
            self._evaluation_seconds = seconds
        self._say(f"{name}_seconds", shorten(seconds))

    def _write_parameters(self, step: int) -> None:
        biases = {name: p for name, p in self._parameters.items() if name.endswith("bias")}
        weights = {name: p for name, p in self._parameters.items() if name not in biases}
        self._write_tensors(step, "weights", weights)
        self._write_tensors(step, "biases", biases)

    def _write_recording(self, facts: StepFacts) -> None:
        """What only the end of a step can tell."""
        assert self._activations is not None
        if self._before:
            names, before = list(self._before), list(self._before.values())
            changed = reduce_updates([self._parameters[name].detach() for name in names], before)
            values = dict(zip(names, changed, strict=True))
            self._writer.add(Tensors(step=facts.step, mode=TRAIN, collection="updates", values=values))
            self._before = {}
        if values := self._activations.take():
            self._writer.add(Tensors(step=facts.step, mode=TRAIN, collection="activations", values=values))
        if facts.inputs.ndim == 4:  # and not the stored features of a frozen backbone
            self._write_inputs(facts)

    def _write_inputs(self, facts: StepFacts) -> None:
        images = thin_out(facts.inputs)
        channels = {f"mean_{c}": shorten(mean) for c, mean in enumerate(images.mean((0, 2, 3)).tolist())}
        reductions = reduce_tensors([images])[0] | channels | {"images": float(len(images))}
        inputs = {"input_0": reductions}
        self._writer.add(Tensors(step=facts.step, mode=TRAIN, collection="inputs", values=inputs))

    def _write_tensors(self, step: int, collection: str, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            values = dict(zip(tensors, reduce_tensors(list(tensors.values())), strict=True))
            self._writer.add(Tensors(step=step, mode=TRAIN, collection=collection, values=values))

    def _write_confusion(self, step: int) -> None:
        if self._confusion.images:
            self._writer.add(Predictions(step=step, mode=TRAIN, confusion=self._confusion.take()))

    def _write_step(self, facts: LossFacts, *, accuracy: float, seconds: Mapping[str, float]) -> None:
        self._writer.add(
            Step(
                step=facts.step,
                epoch=facts.epoch,
                mode=TRAIN,
                time=time.time(),
                loss=shorten(facts.loss),
                accuracy=accuracy,
                images=facts.images,
                learning_rate=shorten(facts.learning_rate),
                seconds={name: shorten(value) for name, value in seconds.items()},
            )
        )

    def _say(self, name: str, value: Any) -> None:
        self._writer.add(Fact(time=time.time(), name=name, value=value))
