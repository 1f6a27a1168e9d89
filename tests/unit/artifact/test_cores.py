"""The container's CPU quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifact.cores import available_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"cpu.max": "100000 100000\n"}, 1, id="v2_one_core"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="v2_half_a_core"),
        pytest.param({"cpu.max": "max 100000\n"}, None, id="v2_unlimited"),
        pytest.param({"cpu.max": "99900000 100000\n"}, None, id="v2_more_than_the_machine_has"),
        pytest.param({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, id="v1"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, id="v1_unlimited"
        ),
        pytest.param({"cpu.max": "?"}, None, id="unreadable"),
        pytest.param({}, None, id="no_cgroup"),
    ],
)
def test_cores_are_cut_by_the_cpu_quota(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))
