"""One fault each: a function of the lab that gives a Result. `SCENARIOS` is the order they run in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from chaos.lab import Lab, Result
from chaos.scenarios.clock import jump_clock
from chaos.scenarios.corrupted import serve_corrupted_bundle
from chaos.scenarios.descriptors import exhaust_descriptors
from chaos.scenarios.disk import fill_disk
from chaos.scenarios.drift import replay_shifted
from chaos.scenarios.fuzz import fuzz
from chaos.scenarios.hostile import drip_and_flood
from chaos.scenarios.kill import kill_workers
from chaos.scenarios.odd import send_odd_files
from chaos.scenarios.overload import overload
from chaos.scenarios.pause import pause_worker
from chaos.scenarios.soak import soak
from chaos.scenarios.terminate import terminate

SCENARIOS: dict[str, Callable[[Lab], Awaitable[Result]]] = {
    "corrupted": serve_corrupted_bundle,
    "terminate": terminate,
    "kill": kill_workers,
    "pause": pause_worker,
    "overload": overload,
    "hostile": drip_and_flood,
    "descriptors": exhaust_descriptors,
    "disk": fill_disk,
    "clock": jump_clock,
    "odd": send_odd_files,
    "drift": replay_shifted,
    "fuzz": fuzz,
    "soak": soak,
}
