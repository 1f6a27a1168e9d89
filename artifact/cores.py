"""How many cores there really are: a container's quota is invisible to os.cpu_count."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # cgroup v2, v1


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores this process may use, at least 1: its affinity, cut by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, read_quota(cgroup))))


def read_quota(cgroup: Path = CGROUP) -> float:
    """Cores' worth of time the container may use, such as 0.5; infinity where nothing limits it."""
    for names in QUOTA_FILES:
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return math.inf if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError):  # not mounted here: no quota known
            continue
    return math.inf
