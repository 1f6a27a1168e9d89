"""What the numbers belong to: processor, system and versions, for the head of a results file."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from artifact.cores import available_cores
from benchmarks.serving.environments import environment_python
from benchmarks.serving.load import wrk_version
from benchmarks.serving.places import HERE

OURS = ("openvino", "pillow", "numpy", "gunicorn")
PRETTY_NAME = re.compile(r'PRETTY_NAME="(.+)"')
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_int8")


def processor_name() -> str:
    """As /proc/cpuinfo has it."""
    return _cpuinfo("model name") or platform.machine()


def file_name(today: str) -> str:
    """`serving_<cpu>_<yyyymm>`; `today` is ISO."""
    processor = re.sub(r"[^a-z0-9]+", "-", processor_name().lower()).strip("-")
    return f"serving_{processor}-{available_cores()}core_{today[:7].replace('-', '')}"


def describe_machine() -> str:
    """One paragraph: what it ran on and with."""
    flags = _cpuinfo("flags").split()
    instructions = ", ".join(name for name in INSTRUCTIONS if name in flags) or "no vector extensions"
    system = PRETTY_NAME.search(Path("/etc/os-release").read_text())
    load = ", ".join(f"{value:.2f}" for value in psutil.getloadavg())
    return (
        f"{processor_name()} ({instructions}), {available_cores()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"{system.group(1) if system else platform.system()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}. Load averages at the start: {load}."
    )


def describe_versions(peers: Sequence[str]) -> str:
    """Kennel's libraries here, wrk, Java, and what is pinned for the peers."""
    ours = ", ".join(f"{name} {_version(name)}" for name in OURS)
    pinned = [
        line
        for name in peers
        for line in (HERE / "requirements" / f"{name}.txt").read_text().split()
        if "==" in line and environment_python(name).is_file()
    ]
    return f"Kennel: {ours}. Peers: {', '.join(sorted(set(pinned))) or 'none'}. Load: {wrk_version()}."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
