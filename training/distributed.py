"""Several processes train one network: the hosts of a SageMaker job, the GPUs of a host, or both.

Each process, a rank, takes its share of every batch; once a step gradients and batch norm's running
statistics are summed, so that all ranks hold the same network after it, bit for bit. A store on the first
host is where they meet, show that they live, and say why they failed: none waits for the dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ipaddress
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store
from torch.nn.modules.batchnorm import _BatchNorm

from training.job import Job, JobError, write_failure

logger = logging.getLogger(__name__)

PORT = 29500  # of the first host, torch's own default; MASTER_PORT overrides it
PROCESSES_VARIABLE = "KENNEL_PROCESSES_PER_HOST"
JOIN_SECONDS = 300.0  # hosts start minutes apart, and their names resolve late
BEAT_SECONDS = 1.0
GONE_SECONDS = 60.0  # of silence
SUSPECT_SECONDS = 8.0  # of silence, once a connection broke: somebody is gone, this says who
FAREWELL_SECONDS = 10.0  # the first rank keeps the store open so long for the others to read the end
COLLECTIVE_TIMEOUT = timedelta(days=1)  # ranks may wait long for the first one; Watch ends what is dead

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


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the joint work ended: the first to write it into the store decides."""

    kind: Literal["finished", "stopped", "failed", "gone"]
    rank: int
    text: str = ""


class World:
    """What ranks do together: each makes the same calls in the same order; alone they cost nothing."""

    def __init__(self, place: Place, watch: Watch | None = None) -> None:
        self.place = place
        self._watch = watch

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
            assert self._watch is not None
            self._watch.name_the_lost()
            raise


class Watch:
    """Shows that this rank lives, looks whether the others do, and ends the process where the work has ended.

    In threads, because a process that waits for a dead one inside a collective cannot look; it ends the
    process at once, because nothing else gets it out of there.
    """

    def __init__(self, store: Store, place: Place, failure_path: Path) -> None:
        self._store = store
        self._place = place
        self._failure_path = failure_path
        self._patience_seconds = GONE_SECONDS
        self._answered = time.monotonic()  # when the store last did
        self._beats: dict[int, tuple[bytes, float]] = {}  # rank -> its last sign of life, and when it came
        self._finished = threading.Event()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._look_on, self._guard)]

    def start(self) -> None:
        """Once all ranks are there."""
        self._answered = time.monotonic()
        for thread in self._threads:
            thread.start()

    def look(self, beat: str) -> End | None:
        """Give a sign of life; the end, where somebody has written one or has been silent for too long."""
        ranks = range(self._place.size)
        try:
            self._store.set(f"beat/{self._place.rank}", beat)
            written, *beats = self._store.multi_get(["end", *(f"beat/{rank}" for rank in ranks)])
        except RuntimeError:
            return End(kind="gone", rank=0, text="its connections are closed")
        self._answered = now = time.monotonic()
        if written:
            return End(**json.loads(written))
        self._beats |= {
            rank: (content, now)
            for rank, content in enumerate(beats)
            if self._beats.get(rank, (b"",))[0] != content
        }
        rank, (_, seen) = min(self._beats.items(), key=lambda item: item[1][1])
        if now - seen <= self._patience_seconds:
            return None
        return self.post(End(kind="gone", rank=rank, text=f"no sign of life for {now - seen:.0f} seconds"))

    def post(self, end: End) -> End:
        """The first end stands, and is returned."""
        written = self._store.compare_set("end", "", json.dumps(dataclasses.asdict(end)))
        return End(**json.loads(written))

    def name_the_lost(self) -> None:
        """A connection broke: whoever is silent now is gone; the look that finds it ends the process."""
        self._patience_seconds = SUSPECT_SECONDS
        time.sleep(SUSPECT_SECONDS + 5 * BEAT_SECONDS)

    def wait_until_finished(self) -> None:
        """Until the first rank has written everything: where one container ends, others may be ended too."""
        self._finished.wait()

    def say_farewell(self) -> None:
        """Stop watching; the first rank, whose the store is, leaves when the others have."""
        self._over.set()
        with contextlib.suppress(RuntimeError):
            left = self._store.add("left", 1)
            deadline = time.monotonic() + FAREWELL_SECONDS
            while self._place.rank == 0 and left < self._place.size and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self._store.add("left", 0)

    def leave(self, end: End) -> None:
        """End this process as another rank ended the work."""
        host = self._place.host_of(end.rank)
        if end.kind == "stopped":
            logger.warning("host %s was stopped before the first step: nothing to save", host)
        else:
            what = "is gone" if end.kind == "gone" else "failed"
            own = end.kind == "failed" and host == self._place.host
            sentence = end.text if own else f"host {host} {what}: {end.text}"
            write_failure(self._failure_path, sentence)
            logger.error("%s", sentence)
        if not (end.kind == "gone" and end.rank == 0):
            self.say_farewell()
        sys.stdout.flush()
        os._exit(0 if end.kind == "stopped" else 1)

    def _look_on(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_SECONDS):
            beat += 1
            end = self.look(str(beat))
            if self._over.is_set() or end is None or end.rank == self._place.rank:
                continue
            if end.kind == "finished":
                self._finished.set()
            else:
                self.leave(end)

    def _guard(self) -> None:
        """A store whose host has fallen silent never answers, and `look` waits for ever."""
        while not self._over.wait(BEAT_SECONDS):
            silence = time.monotonic() - self._answered
            if silence > GONE_SECONDS:
                self.leave(End(kind="gone", rank=0, text=f"no answer for {silence:.0f} seconds"))


@contextlib.contextmanager
def join_world(job: Job, *, processes_per_host: int = 1, local_rank: int = 0) -> Iterator[World]:
    """Meet the other ranks; on leaving, tell them how it ended. Raises JobError naming an absent host."""
    place = Place(
        hosts=job.hosts,
        host_index=job.hosts.index(job.current_host),
        processes_per_host=processes_per_host,
        local_rank=local_rank,
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    if place.size == 1:
        yield World(place)
        return
    _use_interface(job.network_interface)
    deadline = time.monotonic() + JOIN_SECONDS
    store = _open_store(place, deadline)
    watch = Watch(_open_store(place, deadline, is_server=False), place, job.failure_path)
    try:
        _wait_for_all(store, watch, place, deadline)
        watch.start()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        logger.info("rank=%d of %d on host=%s", place.rank, place.size, place.host)
        yield World(place, watch)
        if place.rank != 0:
            watch.wait_until_finished()
        end = End(kind="finished", rank=place.rank)
    except SystemExit:  # SIGTERM before the first step
        end = End(kind="stopped", rank=place.rank)
        raise
    except JobError as error:
        end = End(kind="failed", rank=place.rank, text=str(error))
        raise
    except BaseException as error:
        end = End(kind="failed", rank=place.rank, text=f"{type(error).__name__}: {error}")
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            watch.post(end)
        watch.say_farewell()


def processes_per_host() -> int:
    """One for each GPU, else one, or KENNEL_PROCESSES_PER_HOST. Raises JobError for a wrong value."""
    gpus = torch.cuda.device_count()
    text = os.environ.get(PROCESSES_VARIABLE, str(max(1, gpus)))
    if not text.isdecimal() or int(text) < 1 or (gpus and int(text) > gpus):
        limit = f" from 1 to {gpus}, the number of GPUs" if gpus else " from 1"
        raise JobError(f"{PROCESSES_VARIABLE}={text!r} is not a whole number{limit}.")
    return int(text)


def _open_store(place: Place, deadline: float, *, is_server: bool | None = None) -> TCPStore:
    """A connection to the store; the first rank opens the store itself before."""
    port = int(os.environ.get("MASTER_PORT", PORT))
    is_server = place.rank == 0 if is_server is None else is_server
    _wait_for_host(place.store_host, None if is_server else port, deadline)
    try:
        store = TCPStore(
            place.store_host,
            port,
            is_master=is_server,
            wait_for_workers=False,
            timeout=timedelta(seconds=GONE_SECONDS),
        )
    except RuntimeError as error:
        raise JobError(
            f"Port {port} of {place.host} cannot be opened ({error}). Set MASTER_PORT to a free one, "
            "the same on all hosts."
        ) from error
    if is_server:
        store.set("end", "")
    return store


def _wait_for_host(host: str, port: int | None, deadline: float) -> None:
    """Until its name resolves and, with a port, answers there. Raises JobError after the deadline."""
    while True:
        try:
            address = socket.getaddrinfo(host, port)[0][4]
            if port is not None:
                socket.create_connection((str(address[0]), port), timeout=BEAT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                where = host if port is None else f"{host}:{port}"
                raise JobError(
                    f"Host {where} did not answer within {JOIN_SECONDS:.0f} seconds ({error}). Did it start?"
                ) from error
        time.sleep(0.2)


def _wait_for_all(store: Store, watch: Watch, place: Place, deadline: float) -> None:
    """Until every rank has come. Raises JobError naming a host that has not."""
    store.set(f"beat/{place.rank}", "0")
    absent = list(range(place.size))
    while absent := [rank for rank in absent if not store.check([f"beat/{rank}"])]:
        if store.get("end"):
            watch.leave(End(**json.loads(store.get("end"))))
        if time.monotonic() > deadline:
            raise JobError(
                f"Host {place.host_of(absent[0])} did not join within {JOIN_SECONDS:.0f} seconds. "
                "Did it start?"
            )
        time.sleep(0.2)


def _use_interface(name: str) -> None:
    """The one SageMaker names, where it exists (the SDK's local mode names one that does not)."""
    if name in {found for _, found in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


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
