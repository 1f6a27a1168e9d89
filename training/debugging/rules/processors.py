"""How busy GPUs and processors are: LowGPUUtilization, BatchSize, CPUBottleneck, IOBottleneck, others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.debugging.rules.machine import (
    NO_GPU,
    NO_SAMPLES,
    Floats,
    Samples,
    percentile,
    read_samples,
    thin,
)
from training.debugging.rules.rule import Rule, Verdict
from training.debugging.rules.selection import number, share
from training.debugging.series import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRule(Rule):
    """A rule that looks at GPUs over windows of samples: says NotApplicable where there is none."""

    def judge(self, series: Series) -> Verdict:
        samples = read_samples(series, patience=getattr(self, "patience", 0))
        if not series.system:
            return self.not_applicable(NO_SAMPLES)
        if not read_samples(series).gpus():
            return self.not_applicable(NO_GPU)
        if len(samples) < 2:
            return self.not_applicable(
                f"{len(read_samples(series))} samples were taken; the rule leaves out the first "
                f"patience={getattr(self, 'patience', 0)}."
            )
        return self.judge_samples(samples)

    def judge_samples(self, samples: Samples) -> Verdict:
        """With at least one GPU and two samples."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class LowGPUUtilization(GpuRule):
    """Fires when the 95th percentile of a GPU's utilisation over `window` samples is below `threshold_p95`.

    Or, when that is reached, the 5th is below `threshold_p5`: busy at times, idle at others.
    """

    threshold_p95: float = 70.0
    threshold_p5: float = 10.0
    window: int = 500
    patience: int = 1000

    def judge_samples(self, samples: Samples) -> Verdict:
        for gpu in samples.gpus():
            usage = samples.figures[f"gpu{gpu}_percent"]
            evidence = _over_time(samples, {f"GPU {gpu} %": usage}) | {
                "threshold_p95": self.threshold_p95,
                "threshold_p5": self.threshold_p5,
            }
            for part in windows(usage, self.window):
                high, low = percentile(part, 95), percentile(part, 5)
                if high < self.threshold_p95:
                    return self.issue(
                        summary=f"GPU {gpu} is at most {high:.0f} % busy (95th percentile; threshold_p95 "
                        f"{number(self.threshold_p95)}).",
                        advice="Raise batch_size x 2 until the GPU is full; if the step waits for data "
                        "instead, "
                        "see DataWait; else a smaller instance does the same for less.",
                        evidence=evidence,
                    )
                if low < self.threshold_p5:
                    return self.issue(
                        summary=f"GPU {gpu} swings between {low:.0f} % and {high:.0f} % (5th and 95th "
                        f"percentile; "
                        f"threshold_p5 {number(self.threshold_p5)}).",
                        advice="It waits in between: see where the step's time goes below, and "
                        "CPUBottleneck and "
                        "IOBottleneck for what it waits for.",
                        evidence=evidence,
                    )
        usages = {f"GPU {gpu} %": samples.figures[f"gpu{gpu}_percent"] for gpu in samples.gpus()}
        return self.fine("All GPUs are busy throughout.", _over_time(samples, usages))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSize(GpuRule):
    """Fires when the 95th percentiles of processors, GPU and GPU memory are all below their thresholds."""

    cpu_threshold_p95: float = 70.0
    gpu_threshold_p95: float = 70.0
    gpu_memory_threshold_p95: float = 70.0
    patience: int = 100
    window: int = 500

    def judge_samples(self, samples: Samples) -> Verdict:
        cpu = samples.figures.get("cpu_percent", np.full(len(samples), np.nan))
        limits = (self.cpu_threshold_p95, self.gpu_threshold_p95, self.gpu_memory_threshold_p95)
        for gpu in samples.gpus():
            memory = samples.figures.get(f"gpu{gpu}_memory_percent", np.full(len(samples), np.nan))
            curves = {
                "CPU %": cpu,
                f"GPU {gpu} %": samples.figures[f"gpu{gpu}_percent"],
                "GPU memory %": memory,
            }
            for start in range(0, len(samples), self.window):
                highs = [percentile(curve[start : start + self.window], 95) for curve in curves.values()]
                if all(high < limit for high, limit in zip(highs, limits, strict=True)):
                    return self.issue(
                        summary=f"Processors, GPU {gpu} and its memory are at most {highs[0]:.0f} %, "
                        f"{highs[1]:.0f} % "
                        f"and {highs[2]:.0f} % used (95th percentile).",
                        advice="The batch is too small to fill the machine: raise batch_size x 2 (and "
                        "learning_rate "
                        "with it) until GPU memory is over 70 %, or take a smaller instance.",
                        evidence=_over_time(samples, curves) | {"threshold": limits[1]},
                    )
        return self.fine("Processors, GPU or its memory are well used.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUBottleneck(GpuRule):
    """Fires when GPUs idle below `gpu_threshold` while processors work above `cpu_threshold`.

    In more than `threshold` percent of the samples.
    """

    threshold: float = 50.0
    cpu_threshold: float = 90.0
    gpu_threshold: float = 10.0
    patience: int = 100

    def judge_samples(self, samples: Samples) -> Verdict:
        return judge_bottleneck(
            self,
            samples,
            figure="cpu_percent",
            what="processors are busy",
            limits=(self.threshold, self.cpu_threshold, self.gpu_threshold),
            advice="The GPU waits for the processors: take an instance with more processors for each "
            "GPU, or set "
            "augmentation=none to see what augmentation costs.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IOBottleneck(GpuRule):
    """Fires when GPUs idle below `gpu_threshold` while processors wait for disks over `io_threshold`.

    In more than `threshold` percent of the samples.
    """

    threshold: float = 50.0
    io_threshold: float = 50.0
    gpu_threshold: float = 70.0
    patience: int = 1000

    def judge_samples(self, samples: Samples) -> Verdict:
        return judge_bottleneck(
            self,
            samples,
            figure="iowait_percent",
            what="processors wait for disks",
            limits=(self.threshold, self.io_threshold, self.gpu_threshold),
            advice="The GPU waits for a disk: take an instance whose memory holds the decoded images "
            "twice, lower "
            "image_size, or put TMPDIR on a local disk.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUMemoryIncrease(GpuRule):
    """Fires when a GPU's used memory rises by over `increase` points of percent within `window` samples."""

    increase: float = 10.0
    patience: int = 100
    window: int = 500

    def judge_samples(self, samples: Samples) -> Verdict:
        highest = 0.0
        for gpu in samples.gpus():
            used = samples.figures.get(f"gpu{gpu}_memory_percent", np.full(len(samples), np.nan))
            for part in windows(used, self.window):
                rise = float(part[-1] - part[0])
                highest = max(highest, rise)
                if rise > self.increase:
                    return self.issue(
                        summary=f"The memory of GPU {gpu} rose from {part[0]:.0f} % to {part[-1]:.0f} % "
                        f"within "
                        f"{len(part)} samples (increase {number(self.increase)}).",
                        advice="Something is kept from step to step, such as losses with their graphs: "
                        "detach or "
                        ".item() them; otherwise the job will end out of memory.",
                        evidence=_over_time(samples, {f"GPU {gpu} memory %": used}),
                    )
        return self.fine(f"GPU memory rose by at most {highest:.0f} points.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing(GpuRule):
    """Fires when the mean utilisation of two GPUs differs by more than `threshold` of the busier one."""

    threshold: float = 0.5
    patience: int = 10

    def judge_samples(self, samples: Samples) -> Verdict:
        usages = {gpu: samples.figures[f"gpu{gpu}_percent"] for gpu in samples.gpus()}
        if len(usages) < 2:
            return self.not_applicable("There is one GPU: nothing to balance.")
        means = {gpu: float(np.nanmean(usage)) for gpu, usage in usages.items()}
        least, most = min(means, key=lambda gpu: means[gpu]), max(means, key=lambda gpu: means[gpu])
        difference = 1 - means[least] / max(means[most], 1e-9)
        words = f"GPU {most} is {means[most]:.0f} % busy and GPU {least} {means[least]:.0f} %"
        if difference <= self.threshold:
            return self.fine(f"{words}.")
        return self.issue(
            summary=f"{words}, a difference of {share(difference)} (threshold {share(self.threshold)}).",
            advice="A GPU without work is paid for: start one process for each GPU (torchrun does), or "
            "take an "
            "instance with fewer.",
            evidence=_over_time(samples, {f"GPU {gpu} %": usage for gpu, usage in usages.items()}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallSystemUsage(Rule):
    """Reports how much of the machine was used; never fires."""

    def judge(self, series: Series) -> Verdict:
        samples = read_samples(series)
        if not len(samples):
            return self.not_applicable(NO_SAMPLES)
        shown = {"cpu_percent": "CPU", "memory_percent": "memory", "iowait_percent": "I/O wait"} | {
            f"gpu{gpu}_{what}": f"GPU {gpu}{words}"
            for gpu in samples.gpus()
            for what, words in (("percent", ""), ("memory_percent", " memory"))
        }
        curves = {
            f"{words} %": samples.figures[name] for name, words in shown.items() if name in samples.figures
        }
        words = ", ".join(
            f"{name.removesuffix(' %')} {percentile(curve, 50):.0f} % (95th percentile "
            f"{percentile(curve, 95):.0f} %)"
            for name, curve in curves.items()
        )
        gpu = "" if samples.gpus() else "; no GPU"
        return self.fine(f"Median use: {words}{gpu}.", _over_time(samples, curves))


def judge_bottleneck(
    rule: Rule,
    samples: Samples,
    *,
    figure: str,
    what: str,
    limits: tuple[float, float, float],
    advice: str,
) -> Verdict:
    """Limits in percent: of the samples, of `figure` from below, of the busiest GPU from above."""
    if figure not in samples.figures:
        return rule.not_applicable(f"{figure} was not recorded on this machine.")
    often, busy, idle = limits
    gpu = samples.busiest_gpu()
    held = float(np.mean((samples.figures[figure] > busy) & (gpu < idle)))
    words = f"In {share(held)} of the samples {what} over {number(busy)} % while the GPU is below "
    f"{number(idle)} %"
    evidence = _over_time(samples, {figure: samples.figures[figure], "GPU %": gpu})
    if 100 * held <= often:
        return rule.fine(f"{words}.", evidence)
    return rule.issue(summary=f"{words} (threshold {number(often)} %).", advice=advice, evidence=evidence)


def windows(values: Floats, size: int) -> list[Floats]:
    """Adjacent windows; the last one only when it is the first or at least half full."""
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [part for place, part in enumerate(parts) if not place or len(part) >= size / 2]


def _over_time(samples: Samples, curves: dict[str, Floats]) -> dict[str, list[float] | float]:
    return {"seconds": thin(samples.seconds), **{name: thin(curve) for name, curve in curves.items()}}
