"""Where the time of a step goes: Dataloader, DataWait, OverallFrameworkMetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.debugging.rules.machine import percentile, read_samples, thin
from training.debugging.rules.progress import profiled_steps
from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import number, read_fact, share, train_steps
from training.debugging.series import Series, Step

PHASES = ("data", "transfer", "augment", "forward", "backward", "optimizer", "other")
ENOUGH_STEPS = 5
FITS_WELL = 0.9  # of the memory budget: it changes from job to job


def timed_steps(series: Series) -> list[Step]:
    """Steps with phases; without the first, which warms up, and those that the profiler slowed down."""
    profiled = profiled_steps(series)
    return [step for step in train_steps(series)[1:] if "data" in step.seconds and step.step not in profiled]


def phase_seconds(steps: list[Step]) -> dict[str, float]:
    """Phase -> mean seconds of a step."""
    return {
        phase: float(np.mean([step.seconds.get(phase, 0.0) for step in steps]))
        for phase in PHASES
        if any(phase in step.seconds for step in steps)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWait(Rule):
    """Kennel's own: fires when waiting for data takes more than `threshold` percent of the step.

    Data wait is the phases `data` (pixels out of memory or their file, augmented) and `transfer` (to the
    device).
    """

    threshold: float = 20.0

    def judge(self, series: Series) -> Verdict:
        steps = timed_steps(series)
        if len(steps) < ENOUGH_STEPS:
            return self.not_applicable(f"{len(steps)} steps were timed; {ENOUGH_STEPS} are needed.")
        waits = np.array([step.seconds["data"] + step.seconds.get("transfer", 0.0) for step in steps])
        totals = np.array([step.seconds["total"] for step in steps])
        waited = float(waits.sum() / totals.sum())
        evidence: Evidence = {
            "step": thin(np.array([float(step.step) for step in steps])),
            "data wait, share of the step": thin(waits / totals),
            "threshold": self.threshold / 100,
        }
        words = (
            f"data wait is {share(waited)} of the step: {1000 * waits.mean():.3g} of "
            f"{1000 * totals.mean():.3g} ms"
        )
        if waited <= self.threshold / 100:
            return self.fine(f"{words[0].upper()}{words[1:]}.", evidence)
        above = np.flatnonzero(np.cumsum(waits) / np.cumsum(totals) > self.threshold / 100)
        gain = 1 / (1 - waited)
        return self.issue(
            step=steps[int(above[0]) if len(above) else 0].step,
            summary=f"{words[0].upper()}{words[1:]} (threshold {share(self.threshold / 100)}).",
            advice=data_advice(series, gain),
            evidence=evidence,
        )


def data_advice(series: Series, gain: float) -> str:
    """Something the user can change, and how much faster steps become without the wait."""
    job = read_fact(series, "job") or {}
    faster = f"Without the wait a step is {gain:.1f} times as fast."
    if job.get("pixels_in") == "file":
        return f"{_fit_advice(job)} {faster}"
    return (
        "The decoded images lie in memory, so it is augmentation on busy processors: take an instance "
        "with more "
        f"of them, set augmentation=none to see what it costs, or lower image_size. {faster}"
    )


def _fit_advice(job: Mapping[str, Any]) -> str:
    needed, budget = job["pixels_bytes"], job["memory_budget_bytes"]
    fits = int(job["image_size"] * math.sqrt(FITS_WELL * budget / needed))
    return (
        f"The decoded training images ({_megabytes(needed)}) do not fit half the free memory "
        f"({_megabytes(budget)}) and are read from a file in TMPDIR: set image_size={fits} and resize=0 (now "
        f"image_size={job['image_size']}) or take an instance with "
        f"{_megabytes(2 * needed - 2 * budget)} more "
        "memory, so that they fit; or put TMPDIR on a local disk."
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataloader(Rule):
    """Fires when the processor's work for a step's data is out of proportion to its cores.

    AWS's package documents two percentages without a meaning. Here: CPU utilisation in percent of one core
    per core; below `min_threshold` while data wait is over a fifth of the step the loader uses too few
    workers, above `max_threshold` too many compete.
    """

    min_threshold: float = 70.0
    max_threshold: float = 200.0

    def judge(self, series: Series) -> Verdict:
        waiting = DataWait().judge(series)
        samples = read_samples(series)
        if waiting.status == "NotApplicable" or "cpu_percent" not in samples.figures:
            return self.not_applicable("Steps or processors were not timed long enough.")
        busy = percentile(samples.figures["cpu_percent"], 50)
        words = f"{waiting.summary.rstrip('.')}; the processors are {busy:.0f} % busy"
        if waiting.fired and busy < self.min_threshold:
            return self.issue(
                step=waiting.step,
                summary=f"{words}, below min_threshold {number(self.min_threshold)}: the loader waits "
                f"for a disk, "
                "not for processors.",
                advice=waiting.advice,
                evidence=waiting.evidence,
            )
        if busy > self.max_threshold:
            return self.issue(
                summary=f"{words}, above max_threshold {number(self.max_threshold)}.",
                advice="Too many workers compete: lower their number.",
                evidence=waiting.evidence,
            )
        return self.fine(f"{words}.", waiting.evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallFrameworkMetrics(Rule):
    """Reports where the steps' time went; never fires."""

    def judge(self, series: Series) -> Verdict:
        steps = timed_steps(series)
        if not steps:
            return self.not_applicable("No step was timed.")
        seconds = phase_seconds(steps)
        total = sum(seconds.values()) or 1.0
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        return self.fine(
            f"Of a step's {1000 * total:.3g} ms "
            + ", ".join(f"{phase} took {share(value / total)}" for phase, value in ordered[:4])
            + f" ({len(steps)} steps).",
            {"step": thin(np.array([float(step.step) for step in steps]))}
            | {phase: thin(np.array([step.seconds.get(phase, 0.0) for step in steps])) for phase in seconds},
        )
