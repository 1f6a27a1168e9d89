"""What the machine does while a network trains, every few hundred milliseconds, from a thread.

Processor, memory, disks and network by psutil, NVIDIA's GPUs by their own library. A figure that this machine
does not have is absent: a rule must be able to tell no GPU from an idle one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pynvml

from training.debugging.series import SeriesWriter, System
from training.observer import Observer

logger = logging.getLogger(__name__)


class Sampler(Observer):
    """Samples until it is closed."""

    def __init__(self, writer: SeriesWriter, *, interval_ms: int) -> None:
        self._writer = writer
        self._interval_seconds = interval_ms / 1000
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        machine, gpus = Machine(), open_gpus()
        while not self._over.wait(self._interval_seconds):
            values = machine.read() | {name: value for gpu in gpus for name, value in read_gpu(*gpu).items()}
            self._writer.add(System(time=time.time(), values=values))


class Machine:
    """Rates are since the reading before, or since this was made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        psutil.cpu_percent(percpu=True)  # the first reading has nothing to compare itself with
        psutil.cpu_times_percent()
        self._counted = self._count()
        self._time = time.monotonic()

    def read(self) -> dict[str, float]:
        """System values by name, all but the GPUs'."""
        cores = psutil.cpu_percent(percpu=True)
        memory = psutil.virtual_memory()
        times = psutil.cpu_times_percent()
        values = {
            "cpu_percent": sum(cores) / len(cores),
            **{f"cpu{number}_percent": percent for number, percent in enumerate(cores)},
            "memory_bytes": float(self._own_memory()),
            "memory_available_bytes": float(memory.available),
            "memory_percent": memory.percent,
        }
        if hasattr(times, "iowait"):  # Linux only
            values["iowait_percent"] = times.iowait
        return {name: round(value, 2) for name, value in (values | self._rates()).items()}

    def _own_memory(self) -> int:
        """Resident, children included; one that ends meanwhile counts no more."""
        total: int = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def _rates(self) -> dict[str, float]:
        now, counted = time.monotonic(), self._count()
        seconds = max(1e-6, now - self._time)
        rates = {n: (c - self._counted[n]) / seconds for n, c in counted.items() if n in self._counted}
        self._time, self._counted = now, counted
        return rates

    def _count(self) -> dict[str, float]:
        """Absent in containers that hide their disks or network."""
        counted: dict[str, float] = {}
        if disk := psutil.disk_io_counters():
            counted |= {"disk_read_bytes": disk.read_bytes, "disk_write_bytes": disk.write_bytes}
        if network := psutil.net_io_counters():
            counted |= {
                "network_received_bytes": network.bytes_recv,
                "network_sent_bytes": network.bytes_sent,
            }
        return counted


def open_gpus() -> list[tuple[int, Any]]:
    """(number, handle) of each GPU that the driver shows; none without a driver."""
    try:
        pynvml.nvmlInit()
        return [(n, pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        logger.info("no GPU to sample: %s", error)
        return []


def read_gpu(number: int, handle: Any) -> dict[str, float]:
    """What this GPU tells of itself: a virtual one tells less."""
    readings: dict[str, Callable[[], float]] = {
        "percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_bytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
        "memory_percent": lambda: (
            100 * pynvml.nvmlDeviceGetMemoryInfo(handle).used / pynvml.nvmlDeviceGetMemoryInfo(handle).total
        ),
        "power_watts": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "temperature_celsius": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    }
    values = {}
    for name, read in readings.items():
        try:
            values[f"gpu{number}_{name}"] = round(float(read()), 2)
        except pynvml.NVMLError:
            continue
    return values
