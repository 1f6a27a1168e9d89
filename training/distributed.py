"""Several processes train one network: the hosts of a SageMaker job, the GPUs of a host, or both.

Each process, a rank, takes its share of every batch; once a step gradients and batch norm's running
statistics are summed, so that all ranks hold the same network after it, bit for bit.
`training/rendezvous.py` brings them together, `training/watch.py` sees to it that none waits for the dead.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.job import JobError

T = TypeVar("T")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a process stands among all that train together."""

    hosts: tuple[str, ...] = ("algo-1",)
    host_index: int = 0
    processes_per_host: int = 1
    local_rank: int = 0

    @property
    def rank(self) -> int:
        """0 asks the doctor, writes checkpoints, exports and prints metrics."""
        return self.host_index * self.processes_per_host + self.local_rank

    @property
    def size(self) -> int:
        """Of the whole world."""
        return len(self.hosts) * self.processes_per_host

    @property
    def store_host(self) -> str:
        """A single host need not be able to resolve its own name."""
        return self.hosts[0] if len(self.hosts) > 1 else "127.0.0.1"

    @property
    def processes_on_machine(self) -> int:
        """They share its cores; loopback hosts are all the same machine."""
        return self.size if all(map(_is_loopback, self.hosts)) else self.processes_per_host

    @property
    def host(self) -> str:
        """This process's."""
        return self.hosts[self.host_index]

    def host_of(self, rank: int) -> str:
        """The name as resourceconfig.json spells it."""
        return self.hosts[rank // self.processes_per_host]


class World:
    """What ranks do together: each makes the same calls in the same order; alone they cost nothing."""

    def __init__(self, place: Place, name_the_lost: Callable[[], None] = lambda: None) -> None:
        """`name_the_lost` is called when a connection broke, and seldom returns."""
        self.place = place
        self._name_the_lost = name_the_lost

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def is_first(self) -> bool:
        return self.place.rank == 0

    @property
    def share(self) -> slice:
        """Of a batch that every rank knows: shares differ by one image at most."""
        return slice(self.place.rank, None, self.size)

    def sum(self, values: NDArray[Number]) -> NDArray[Number]:
        """Over all ranks, the same bits on each."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values.copy())
        self._together(functools.partial(distributed.all_reduce, total))
        return np.asarray(total.numpy())

    def any(self, flag: bool) -> bool:
        """Whether it is true on at least one rank."""
        return bool(self.sum(np.asarray([flag], dtype=np.int32))[0])

    def broadcast(self, value: T) -> T:
        """The first rank's, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        cpu = torch.device("cpu")
        self._together(functools.partial(distributed.broadcast_object_list, values, device=cpu))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        self._together(functools.partial(distributed.all_gather_object, values, value))
        return values

    def share_network(self, network: nn.Module, device: torch.device) -> None:
        """The first rank's weights on every rank; on GPUs batch norm looks at the whole batch."""
        if self.size == 1:
            return
        for tensor in network.state_dict().values():
            self._together(functools.partial(distributed.broadcast, tensor, 0))
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]

    def check_same(self, facts: dict[str, str]) -> None:
        """Raises JobError on every rank that differs from the first, naming the fact."""
        expected = self.broadcast(facts)
        differing = sorted(name for name in expected | facts if expected.get(name) != facts.get(name))
        if differing:
            host, first = self.place.host, self.place.hosts[0]
            raise JobError(
                f"Host {host} differs from {first} in {differing[0]} ({facts.get(differing[0])!r}, there "
                f"{expected.get(differing[0])!r}). Every host needs all images: use FullyReplicated."
            )

    def merge_step(self, network: nn.Module, *, weight: float) -> None:
        """Gradients and the running statistics that the step moved become weighted sums over the ranks.

        With this rank's share of the batch as `weight` the gradient is that of the whole batch's mean loss.
        """
        if self.size == 1:
            return
        tensors = [p.grad for p in network.parameters() if p.grad is not None] + _running_statistics(network)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).mul_(weight)
        self._together(functools.partial(distributed.all_reduce, flat))
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))

    def _together(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError:  # a connection broke
            self._name_the_lost()
            raise


def _running_statistics(network: nn.Module) -> list[Tensor]:
    """Of the batch norms that learn: a frozen one must not move, not even by a rounding."""
    return [
        tensor
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.training
        for tensor in (module.running_mean, module.running_var)
        if tensor is not None
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
