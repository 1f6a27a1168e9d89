"""Trials and hosts beside each other on one machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from artifact.cores import available_cores
from local.cores import on_cores, share_cores

ASK = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]


def test_programs_side_by_side_share_the_cores_and_a_single_one_has_all() -> None:
    mine = os.sched_getaffinity(0)

    shares = [share_cores(slot, 2) for slot in range(2)]

    assert share_cores(0, 1) == ()
    assert all(len(share) == max(1, available_cores() // 2) and set(share) <= mine for share in shares)
    assert available_cores() == 1 or not set(shares[0]) & set(shares[1])
    assert {len(share_cores(slot, 64)) for slot in range(64)} == {max(1, available_cores() // 64)}


def test_what_is_started_meanwhile_has_those_cores_and_later_ones_have_all() -> None:
    mine = os.sched_getaffinity(0)
    one = (min(mine),)

    with on_cores(one):
        inside = subprocess.check_output(ASK, text=True)
    after = subprocess.check_output(ASK, text=True)

    assert inside.split() == [str(one[0])]
    assert {int(core) for core in after.split()} == mine


def test_a_failure_gives_the_cores_back() -> None:
    mine = os.sched_getaffinity(0)

    with pytest.raises(ValueError), on_cores((min(mine),)):
        raise ValueError

    assert os.sched_getaffinity(0) == mine
