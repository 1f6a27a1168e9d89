"""Where the ranks of a job meet: a store on the first host, then torch's process group."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from training.distributed import Place, World
from training.failure import explain
from training.job import Job, JobError
from training.watch import BEAT_SECONDS, GONE_SECONDS, End, Watch, post

logger = logging.getLogger(__name__)

PORT = 29500  # of the first host, torch's own default; MASTER_PORT overrides it
JOIN_SECONDS = 300.0  # hosts start minutes apart, and their names resolve late
REJOIN_SECONDS = 90.0  # hosts that trained already have only their processes to start again
COLLECTIVE_TIMEOUT = timedelta(days=1)  # ranks may wait long for the first one; Watch ends what is dead


@contextlib.contextmanager
def join_world(
    job: Job, *, processes_per_host: int = 1, local_rank: int = 0, join_seconds: float = JOIN_SECONDS
) -> Iterator[World]:
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
    deadline = time.monotonic() + join_seconds
    store = _enter_round(place, deadline)
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
        yield World(place, watch.name_the_lost)
        if place.rank != 0:
            watch.wait_until_finished()
        end = End(kind="finished", rank=place.rank)
    except SystemExit:  # SIGTERM before the first step
        end = End(kind="stopped", rank=place.rank)
        raise
    except BaseException as error:
        end = End(kind="failed", rank=place.rank, text=explain(error))
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            watch.post(end)
        watch.say_farewell()


def _enter_round(place: Place, deadline: float) -> Store:
    """The store of this round. One where this rank has been before is that of a round in which it died."""
    while True:
        store = _open_store(place, deadline, is_server=place.rank == 0)
        with contextlib.suppress(RuntimeError):  # the first host is just ending it
            if store.add(f"come/{place.rank}", 1) == 1:
                return store
            post(store, End(kind="gone", rank=place.rank, text="its process died and was started again"))
        if time.monotonic() > deadline:
            raise JobError(f"Host {place.hosts[0]} does not end the round in which this host failed.")
        time.sleep(BEAT_SECONDS)


def _open_store(place: Place, deadline: float, *, is_server: bool) -> TCPStore:
    """The store itself, or a connection to it."""
    port = int(os.environ.get("MASTER_PORT", PORT))
    while True:
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
            if is_server:
                raise JobError(
                    f"Port {port} of {place.host} cannot be opened ({error}). Set MASTER_PORT to a free one, "
                    "the same on all hosts."
                ) from error
            time.sleep(BEAT_SECONDS)  # its host ended it since it answered
            continue
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
                raise JobError(f"Host {where} did not answer in time ({error}). Did it start?") from error
        time.sleep(0.2)


def _wait_for_all(store: Store, watch: Watch, place: Place, deadline: float) -> None:
    """Until every rank has come. Raises JobError naming a host that has not."""
    try:
        store.set(f"beat/{place.rank}", "0")
        absent = list(range(place.size))
        while absent := [rank for rank in absent if not store.check([f"beat/{rank}"])]:
            if store.get("end"):
                watch.leave(End(**json.loads(store.get("end"))))
            if time.monotonic() > deadline:
                raise JobError(f"Host {place.host_of(absent[0])} did not join in time. Did it start?")
            time.sleep(0.2)
    except RuntimeError:
        watch.leave(End(kind="gone", rank=0, text="its connections are closed"))


def _use_interface(name: str) -> None:
    """The one SageMaker names, where it exists (the SDK's local mode names one that does not)."""
    if name in {found for _, found in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
