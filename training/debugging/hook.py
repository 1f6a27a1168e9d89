"""smdebug's own output, for SageMaker Debugger's rules and for `smdebug.trials.create_trial`.

A job with DebugHookConfig finds debughookconfig.json, and what it says is done; `smdebug=true` writes losses,
weights, biases and gradients into the job's output. Its steps are optimizer steps, and in mode EVAL passes
over the validation split, of which the first batch's tensors are saved. The only file that knows smdebug;
without either there is nothing to call, and nothing of it is loaded.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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
        self._handle: RemovableHandle | None = None
        self._of_this_pass: Any = set()  # the collections that the evaluation's step saves

    def watch(self, network: nn.Module) -> None:
        self._network = network
        self._hook.register_module(network)
        _drop(network._forward_pre_hooks, self._hook)  # it would count every micro batch as a step
        self._handle = network.register_forward_hook(self._forward_ends)

    def step_starts(self, step: int) -> None:
        self._hook.set_mode(self._modes.TRAIN)
        self._hook.forward_pre_hook(self._network, ())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if name == "evaluation":
            self._hook.set_mode(self._modes.EVAL)
            self._hook.forward_pre_hook(self._network, ())
            self._of_this_pass = self._hook._get_collections_to_save_for_step()
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
        self._hook._collections_to_save_for_step = self._of_this_pass
        self._record(metrics["loss"])

    def close(self) -> None:
        self._hook.close()
        if self._network is not None and self._handle is not None:
            self._handle.remove()
            _unregister(self._hook, self._network)
        if self._end_file is not None and self._end_file.parent.is_dir():
            # Where smdebug sees a job's name it leaves this to the service, which does not know of us.
            self._end_file.touch()

    def _record(self, loss: float) -> None:
        self._hook.record_tensor_value(LOSS, torch.tensor(loss))

    def _forward_ends(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._hook.mode == self._modes.EVAL:
            self._hook._collections_to_save_for_step = set()


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
        _drop(module._forward_hooks, hook)
        _drop(module._forward_pre_hooks, hook)


def _drop(hooks: MutableMapping[int, Any], hook: Any) -> None:
    for key in [key for key, call in hooks.items() if getattr(call, "__self__", None) is hook]:
        del hooks[key]
