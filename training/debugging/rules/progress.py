"""Time between steps: StalledTrainingRule, MaxInitializationTime, StepOutlier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.debugging.rules.machine import thin
from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import number, read_ending, read_fact, share, train_steps
from training.debugging.series import Series

MOST_NAMED = 3  # outliers in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledTrainingRule(Rule):
    """Fires when no step and no validation pass ends for `threshold` seconds.

    The sampler goes on while the training stands still, so its last sample says how late it is.
    """

    threshold: float = 1800.0
    stop_training_on_fire: bool = False
    training_job_name_prefix: str | None = None  # accepted; the rule watches its own job

    def judge(self, series: Series) -> Verdict:
        ends = sorted((step.time, step.step) for step in series.steps)
        if not ends:
            return self.not_applicable("No step has ended yet.")
        if read_ending(series, "ended") is None:
            ends.append((max([ends[-1][0], *(sample.time for sample in series.system)]), ends[-1][1]))
        times = np.array([time for time, _ in ends])
        gaps = np.diff(times)
        evidence: Evidence = {
            "seconds": thin(times[1:] - times[0]),
            "seconds without a step": thin(gaps),
            "threshold": self.threshold,
        }
        longest = float(gaps.max()) if len(gaps) else 0.0
        if longest <= self.threshold:
            return self.fine(f"The longest time without a step was {number(longest)} s.", evidence)
        place = int(np.argmax(gaps > self.threshold))
        return self.issue(
            step=ends[place][1],
            summary=f"After step {ends[place][1]} nothing happened for {number(float(gaps[place]))} s "
            f"(threshold "
            f"{number(self.threshold)} s).",
            advice="Look for a slow or hanging file system, a host that died, or a process that waits for "
            "another; with action stop the job is ended and costs nothing more.",
            evidence=evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxInitializationTime(Rule):
    """Fires when the first step begins more than `threshold` minutes after the process started."""

    threshold: float = 20.0

    def judge(self, series: Series) -> Verdict:
        seconds = read_fact(series, "initialization_seconds")
        if seconds is None:
            return self.not_applicable("No step has begun yet.")
        words = f"The first step began {number(seconds / 60)} minutes after the process started"
        if seconds <= 60 * self.threshold:
            return self.fine(f"{words}.")
        return self.issue(
            step=0,
            summary=f"{words} (threshold {number(self.threshold)}).",
            advice="Images are decoded before the first step: store them smaller (image_size x 8 / 7 is "
            "all that is "
            "used), pack many small files less deeply, or use an instance with more processors.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutlier(Rule):
    """Fires when more than `n_outliers` steps take `stddev` standard deviations longer than the mean.

    Steps that the operator profiler slowed down, and the first one, which warms up, are left out. `mode` is
    accepted: validation passes are no steps.
    """

    mode: str | None = None
    n_outliers: int = 10
    stddev: float = 5.0

    def judge(self, series: Series) -> Verdict:
        profiled = profiled_steps(series)
        steps = [
            step for step in train_steps(series)[1:] if "total" in step.seconds and step.step not in profiled
        ]
        if len(steps) < 2:
            return self.not_applicable("Fewer than two steps were timed.")
        durations = np.array([step.seconds["total"] for step in steps])
        limit = float(durations.mean() + self.stddev * durations.std())
        outliers = [step for step in steps if step.seconds["total"] > limit]
        evidence: Evidence = {
            "step": thin(np.array([float(step.step) for step in steps])),
            "seconds of a step": thin(durations),
            f"{number(self.stddev)} standard deviations": limit,
        }
        if len(outliers) <= self.n_outliers:
            return self.fine(
                f"{len(outliers)} of {len(steps)} steps took longer than {number(limit)} s (n_outliers "
                f"{self.n_outliers}); the median is {number(float(np.median(durations)))} s.",
                evidence,
            )
        named = ", ".join(
            f"{step.step} ({number(step.seconds['total'])} s)" for step in outliers[:MOST_NAMED]
        )
        lost = sum(step.seconds["total"] for step in outliers) - len(outliers) * float(np.median(durations))
        return self.issue(
            step=outliers[self.n_outliers].step,
            summary=f"{len(outliers)} of {len(steps)} steps took longer than {number(limit)} s, where "
            f"the median "
            f"is {number(float(np.median(durations)))} s: {named}, ...",
            advice=f"Steps as quick as the median would save {share(lost / float(durations.sum()))} of "
            f"the time. "
            "The slowest steps' phases are in the table below; if it is data, pixels lie in a file that the "
            "machine's memory does not hold.",
            evidence=evidence,
        )


def profiled_steps(series: Series) -> frozenset[int]:
    """Steps that torch.profiler watched, and made slower."""
    found: set[int] = set()
    for fact in series.facts:
        if fact.name == "profiled_steps":
            found.update(range(int(fact.value[0]), int(fact.value[1]) + 1))
    return frozenset(found)
