"""80 % load for as long as asked: no error, and neither memory nor descriptors grow.

Load is the share of the processor time that the processes which predict take at the peak. A rented machine's
speed drifts by the minute, so a rate that is 80 % now may be 120 % soon; the rate follows.
"""

from __future__ import annotations

import asyncio
import csv
import time
from pathlib import Path

from chaos.lab import Lab, Peak, Result, measure_peak
from chaos.ledger import Ledger, is_flat
from chaos.load import Pace, open_loop
from chaos.plot import draw_usage
from chaos.server import Server

SHARE = 0.8
PACE_SECONDS = 1.0  # between two looks at the load
PACE_MEMORY = 0.6  # of the load looked at before: of about 2 s
FASTER, SLOWER = 1.02, 0.7  # a look changes the rate by no more
SAMPLE_SECONDS = 5.0
MEMORY_TOLERANCE = 0.05
DESCRIPTOR_SLACK = 32  # bursts open connections that stay; a leak at this rate would be thousands

Sample = tuple[float, int, int]  # seconds since the start, PSS bytes, descriptors


async def soak(lab: Lab) -> Result:
    """Keeps soak.csv and soak.svg."""
    if not lab.soak_minutes:
        return Result(name="soak", passed=True, skipped="not asked for (--soak MINUTES)")
    seconds = 60.0 * lab.soak_minutes
    ledger = Ledger()
    async with lab.server() as server:
        peak = await measure_peak(lab, server)
        pace, rates = Pace(SHARE * peak.goodput), list[float]()
        sampling = asyncio.create_task(_sample(server, seconds))
        pacing = asyncio.create_task(_hold_load(server, peak, pace, rates))
        await open_loop(lab.target(server), ledger, pace, seconds=seconds)
        pacing.cancel()
        samples = await sampling
    write_samples(samples, lab.scratch / "soak.csv")
    draw_usage(samples, lab.scratch / "soak.svg")
    memory, descriptors = [float(row[1]) for row in samples], [float(row[2]) for row in samples]
    errors = len(ledger.entries) - ledger.counts().get("answered", 0)
    numbers = {
        "requests": len(ledger.entries),
        "rate": [min(rates), sum(rates) / len(rates), max(rates)],
        "errors": errors,
        "first_mb": memory[0] / 1e6,
        "last_mb": memory[-1] / 1e6,
        "descriptors": [int(descriptors[0]), int(max(descriptors)), int(descriptors[-1])],
        "fates": ledger.counts(),
    }
    flat = is_flat(memory, tolerance=MEMORY_TOLERANCE) and is_flat(descriptors, slack=DESCRIPTOR_SLACK)
    return Result(name="soak", passed=flat and errors == 0, numbers=numbers)


async def _hold_load(server: Server, peak: Peak, pace: Pace, rates: list[float]) -> None:
    """Until cancelled: `pace` goes so fast that the load is SHARE; its rates are kept."""
    load, before, worked = SHARE, time.monotonic(), server.predicting_seconds()
    while True:
        await asyncio.sleep(PACE_SECONDS)
        now, seconds = time.monotonic(), server.predicting_seconds()
        seen = (seconds - worked) / (now - before) / max(peak.busy, 0.01)
        before, worked = now, seconds
        load = PACE_MEMORY * load + (1 - PACE_MEMORY) * max(seen, 0.0)
        pace.rate = min(pace.rate * min(max(SHARE / max(load, 0.01), SLOWER), FASTER), peak.goodput)
        rates.append(pace.rate)


async def _sample(server: Server, seconds: float) -> list[Sample]:
    start = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() < start + seconds:
        pss, descriptors = await asyncio.to_thread(server.usage)
        samples.append((time.monotonic() - start, pss, descriptors))
        await asyncio.sleep(min(SAMPLE_SECONDS, seconds / 40))
    return samples


def write_samples(samples: list[Sample], path: Path) -> None:
    """A row per sample."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "pss_bytes", "descriptors"])
        writer.writerows([f"{seconds:.1f}", pss, descriptors] for seconds, pss, descriptors in samples)
