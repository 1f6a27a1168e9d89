"""What torch's operators cost over a few steps, as operators.json.

    {"device": "cpu", "steps": [5, 7], "wall_seconds": 1.2,
     "groups": {"convolution": 0.8, ...}, "operators": [{"name", "group", "calls", "seconds"}, ...]}

Seconds are an operator's own, without those it calls; on a GPU they are the GPU's. Groups add up all
operators, `operators` lists the MOST costly ones, the costliest first.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import profiler
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent

from training.debugging.series import Fact, SeriesWriter
from training.observer import Observer, StepFacts

OPERATORS_FILE = "operators.json"
WARM_UP_STEPS = 5  # caches, memory pools and autotuning settle
MOST = 60  # operators listed

PHASE = "phase: "
# Everything done in these phases is of one group, whichever operators do it.
PHASE_GROUPS = {"data": "data", "transfer": "data", "augment": "augmentation", "optimizer": "optimizer"}
OPERATOR_GROUPS = (
    (r"conv", "convolution"),
    (r"batch_?norm", "batch norm"),
    (r"layer_?norm|group_?norm|instance_?norm", "other norms"),
    (r"addmm|\bmm\b|bmm|baddbmm|matmul|linear|attention", "linear"),
    (r"pool", "pooling"),
    (r"relu|threshold|sigmoid|tanh|silu|gelu|hardswish|hardtanh|elu", "activation"),
    (r"softmax|nll_loss|cross_entropy", "loss"),
)


class OperatorProfiler(Observer):
    """Profiles `count` steps from the `first` one this process does after its warm-up."""

    def __init__(self, writer: SeriesWriter, directory: Path, *, count: int, total_steps: int) -> None:
        self._writer = writer
        self._path = directory / OPERATORS_FILE
        self._count = count
        self._wait = min(WARM_UP_STEPS, max(0, total_steps - count))
        self._seen = 0
        self._profile: profiler.profile | None = None
        self._first = 0
        self._started = 0.0

    def step_starts(self, step: int) -> None:
        if self._seen == self._wait:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it says on stderr that there is no GPU
            activities = [profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(profiler.ProfilerActivity.CUDA)
            self._profile = profiler.profile(activities=activities)
            self._profile.start()
            self._first, self._started = step, time.perf_counter()
        self._seen += 1

    def phase(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self._profile is None else profiler.record_function(PHASE + name)

    def step_ends(self, facts: StepFacts) -> None:
        if self._profile is None or facts.step < self._first + self._count - 1:
            return
        wall_seconds = time.perf_counter() - self._started
        self._profile.stop()
        content = {
            "device": facts.inputs.device.type,
            "steps": [self._first, facts.step],
            "wall_seconds": round(wall_seconds, 4),
            **total_operators(self._profile.events() or []),  # type: ignore[no-untyped-call]
        }
        self._profile = None
        self._path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self._writer.add(Fact(time=time.time(), name="profiled_steps", value=content["steps"]))

    def close(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None


def total_operators(events: list[FunctionEvent]) -> dict[str, Any]:
    """`groups` and `operators` of the file."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    calls: defaultdict[tuple[str, str], int] = defaultdict(int)
    on_gpu = any(event.device_type == DeviceType.CUDA for event in events)
    for event in events:
        if event.device_type != DeviceType.CPU or event.name.startswith(PHASE):
            continue
        key = (find_group(event), event.name)
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        seconds[key] += microseconds / 1e6
        calls[key] += 1
    groups: defaultdict[str, float] = defaultdict(float)
    for (group, _), duration in seconds.items():
        groups[group] += duration
    costly = sorted(seconds, key=lambda key: -seconds[key])[:MOST]
    return {
        "groups": {g: round(groups[g], 6) for g in sorted(groups, key=lambda group: -groups[group])},
        "operators": [
            {
                "name": name,
                "group": group,
                "calls": calls[group, name],
                "seconds": round(seconds[group, name], 6),
            }
            for group, name in costly
        ],
    }


def find_group(event: FunctionEvent) -> str:
    """By the phase it is done in, else by the nearest name, its own or a caller's, that tells."""
    lineage = [event.name]
    parent = event.cpu_parent
    while parent is not None:
        lineage.append(parent.name)
        parent = parent.cpu_parent
    for name in lineage:
        if name.startswith(PHASE) and name.removeprefix(PHASE) in PHASE_GROUPS:
            return PHASE_GROUPS[name.removeprefix(PHASE)]
        if name.startswith("Optimizer."):
            return "optimizer"
    for name in lineage:
        for pattern, group in OPERATOR_GROUPS:
            if re.search(pattern, name, re.IGNORECASE) and not name.startswith(PHASE):
                return group
    return "other"
