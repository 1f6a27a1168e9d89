"""Ranks, shares, meeting and the watch; whole jobs are in tests/integration/test_distributed_job.py."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from training import watch as watching
from training.distributed import Place, World
from training.job import JobError, read_job
from training.launch import processes_per_host
from training.rendezvous import join_world
from training.watch import End, Watch

REPOSITORY = Path(__file__).resolve().parents[3]
TWO = Place(hosts=("algo-1", "algo-2"))


def _store() -> TCPStore:
    """Port 0: the system picks one."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))
    store.set("end", "")
    return store


def _prefix(tmp_path: Path, *, current_host: str, hosts: list[str]) -> Path:
    config = {"current_host": current_host, "hosts": hosts, "network_interface_name": "ethwe"}
    (tmp_path / "input/config").mkdir(parents=True)
    (tmp_path / "input/config/resourceconfig.json").write_text(json.dumps(config))
    return tmp_path


def test_ranks_count_through_the_processes_of_each_host() -> None:
    hosts = ("algo-1", "algo-10", "algo-2")
    places = [
        Place(hosts=hosts, host_index=i, processes_per_host=2, local_rank=j)
        for i in range(3)
        for j in range(2)
    ]

    assert [place.rank for place in places] == list(range(6)) and {place.size for place in places} == {6}
    assert [places[0].host_of(rank) for rank in (1, 2, 5)] == ["algo-1", "algo-10", "algo-2"]


@pytest.mark.parametrize(
    ("hosts", "expected"), [(("algo-1", "algo-2"), 4), (("127.0.0.1", "127.0.0.2"), 8), (("algo-1",), 4)]
)
def test_only_loopback_hosts_share_a_machine(hosts: tuple[str, ...], expected: int) -> None:
    assert Place(hosts=hosts, processes_per_host=4).processes_on_machine == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_hold_every_image_once_and_differ_by_one_at_most(size: int) -> None:
    hosts = tuple(f"algo-{number}" for number in range(size))
    batch = np.arange(5)

    shares = [batch[World(Place(hosts=hosts, host_index=rank)).share] for rank in range(size)]

    assert sorted(np.concatenate(shares).tolist()) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    values = np.array([1.5, 2.0])

    assert World(Place()).sum(values) is values
    assert World(Place()).broadcast(values) is values


def test_silent_rank_is_found_and_the_first_end_stands(tmp_path: Path) -> None:
    store = _store()
    store.set("beat/1", "0")
    watch = Watch(store, TWO, tmp_path / "failure")
    watch._patience_seconds = 0.2

    before = watch.look("1")
    time.sleep(0.3)
    found = watch.look("2")

    assert before is None
    assert found == End(kind="gone", rank=1, text="no sign of life for 0 seconds")
    assert watch.post(End(kind="failed", rank=0, text="later")) == found


def test_rank_that_lives_is_not_found(tmp_path: Path) -> None:
    store = _store()
    watch = Watch(store, TWO, tmp_path / "failure")
    watch._patience_seconds = 0.2
    for beat in range(4):
        store.set("beat/1", str(beat))

        assert watch.look(str(beat)) is None

        time.sleep(0.1)


@pytest.mark.parametrize(
    ("current_host", "hosts", "sentence"),
    [
        pytest.param("127.0.0.1", ["127.0.0.1", "127.0.0.2"], "Host 127.0.0.2 did not join", id="absent"),
        pytest.param(
            "127.0.0.2", ["127.0.0.1", "127.0.0.2"], "Host 127.0.0.1:[0-9]+ did not answer", id="first"
        ),
        pytest.param("algo-2", ["algo-1.invalid", "algo-2"], "Host algo-1.invalid:[0-9]+ did not", id="name"),
    ],
)
def test_absent_host_is_named(
    current_host: str, hosts: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FAREWELL_SECONDS", 0.1)
    with socket.socket() as unused:
        unused.bind(("", 0))
        monkeypatch.setenv("MASTER_PORT", str(unused.getsockname()[1]))
    job = read_job(_prefix(tmp_path, current_host=current_host, hosts=hosts))

    with pytest.raises(JobError, match=sentence), join_world(job, join_seconds=0.5):
        raise AssertionError("joined without the other host")


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5"])
def test_wrong_number_of_processes_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KENNEL_PROCESSES_PER_HOST", text)

    with pytest.raises(JobError, match=f"KENNEL_PROCESSES_PER_HOST='{text}' is not a whole number"):
        processes_per_host()


STEP = """
import sys
from pathlib import Path

import torch
from torch.nn import functional

from training.job import read_job
from training.rendezvous import join_world

torch.manual_seed(3)
images, targets = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)]
network = torch.nn.Sequential(*layers)
network[0].weight.data = network[0].weight.data.to(memory_format=torch.channels_last)
functional.cross_entropy(network(images), targets).backward()
expected = [parameter.grad.clone() for parameter in network.parameters()]
network.zero_grad()

with join_world(read_job(Path(sys.argv[1]))) as world:
    share = world.share
    functional.cross_entropy(network(images[share]), targets[share]).backward()
    world.merge_step(network, weight=len(targets[share]) / 5)
    differences = [float((p.grad - e).abs().max()) for p, e in zip(network.parameters(), expected)]
    assert world.any(world.is_first) and world.broadcast(world.place.rank) == 0
    print(len(targets[share]), max(differences))
"""


def test_gradient_of_ragged_shares_is_that_of_the_batch(tmp_path: Path) -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    with socket.socket() as unused:
        unused.bind(("", 0))
        port = unused.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STEP, str(_prefix(tmp_path / host, current_host=host, hosts=hosts))],
            cwd=REPOSITORY,
            env={"PATH": "", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for host in hosts
    ]

    printed = [process.communicate(timeout=60)[0].split() for process in processes]

    assert [int(count) for count, _ in printed] == [3, 2]
    assert all(float(difference) < 1e-6 for _, difference in printed)
