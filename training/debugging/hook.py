"""smdebug's own output, for SageMaker Debugger's rules and for `smdebug.trials.create_trial`.

A job with DebugHookConfig finds debughookconfig.json, and what it says is done; `smdebug=true` writes losses,
weights, biases and gradients into the job's output. A step is to smdebug one pass through the network: with
micro_batch there are several in an optimizer step. The only file that knows smdebug; without either there is
nothing to call, and nothing of it is loaded.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.job import Job
from training.observer import LossFacts, Observer

LOSS = "CrossEntropyLoss"  # as smdebug calls the tensor of a registered loss; it appends _output_0
COLLECTIONS = ("weights", "biases", "gradients")
SAVE_INTERVAL = 500  # smdebug's own default: whole tensors are written, tens of megabytes a time
END_FILE = "training_job_end.ts"  # tells readers that nothing more will come


def build_hook(job: Job, directory: Path, *, asked: bool, interval: int) -> Observer:
    """The hook as debughookconfig.json has it, else with `asked` one that writes into `directory`.

    Otherwise an observer that does nothing. Raises smdebug's own errors for a config that it does not take.
    """
    config = job.prefix / "input" / "config" / "debughookconfig.json"
    if not config.is_file() and not asked:
        return Observer()
    smdebug = _import_smdebug()
    if config.is_file():
        return SmdebugHook(smdebug, smdebug.Hook.create_from_json_file(json_file_path=str(config)))
    shutil.rmtree(directory, ignore_errors=True)  # smdebug does not go on in a folder of an earlier start
    own = smdebug.Hook(
        out_dir=str(directory),
        include_collections=list(COLLECTIONS),
        save_config=smdebug.SaveConfig(save_interval=interval or SAVE_INTERVAL),
    )
    losses = own.get_collection("losses")
    losses.save_config = smdebug.SaveConfig(
        {
            smdebug.modes.TRAIN: smdebug.SaveConfigMode(save_interval=interval or SAVE_INTERVAL),
            smdebug.modes.EVAL: smdebug.SaveConfigMode(save_interval=1),
        }
    )
    return SmdebugHook(smdebug, own, end_file=directory / END_FILE)


class SmdebugHook(Observer):
    """Drives smdebug's hook; leaves the network without it."""

    def __init__(self, smdebug: ModuleType, hook: Any, *, end_file: Path | None = None) -> None:
        self._modes = smdebug.modes
        self._hook = hook
        self._hook._make_numpy_array = _to_numpy
        self._end_file = end_file
        self._network: nn.Module | None = None

    def watch(self, network: nn.Module) -> None:
        self._network = network
        self._hook.register_module(network)

    def step_starts(self, step: int) -> None:
        self._hook.set_mode(self._modes.TRAIN)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if name == "evaluation":
            self._hook.set_mode(self._modes.EVAL)
        yield

    def loss_ready(self, facts: LossFacts) -> None:
        self._record(facts.loss)

    def evaluated(
        self,
        *,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        log_probabilities: NDArray[np.float64],
        targets: NDArray[np.int64],
    ) -> None:
        self._record(metrics["loss"])  # of the pass, at its last batch

    def close(self) -> None:
        self._hook.close()
        if self._network is not None:
            _unregister(self._hook, self._network)
        if self._end_file is not None and self._end_file.parent.is_dir():
            # Where smdebug sees a job's name it leaves this to the service, which does not know of us.
            self._end_file.touch()

    def _record(self, loss: float) -> None:
        if self._hook.prepared_collections:  # at the first forward pass; stored features have none
            self._hook.record_tensor_value(LOSS, torch.tensor(loss))


def _import_smdebug() -> ModuleType:
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "warning")  # it tells every parameter's name
    with warnings.catch_warnings():  # of 2023, and so are its generated protocol buffers
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ImportWarning)
        import smdebug.pytorch
    module: ModuleType = smdebug.pytorch
    return module


def _to_numpy(value: Any) -> Any:
    """numpy knows no bfloat16, which activations have under autocast."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _unregister(hook: Any, network: nn.Module) -> None:
    """smdebug keeps no handles of what it registers; an exported network must not call it."""
    for module in network.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, call in hooks.items() if getattr(call, "__self__", None) is hook]:
                del hooks[key]
