"""What the sampler saw of the machine, as arrays, and what several profiler rules share."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.debugging.rules.selection import train_steps
from training.debugging.series import Series, System

Floats = NDArray[np.float64]
NO_GPU = "There is no GPU on this machine: no GPU figure was recorded."
NO_SAMPLES = "The machine was not sampled."


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """System samples taken while the training went on: (num_samples,) each, NaN where a figure is absent."""

    seconds: Floats  # since the first sample
    figures: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.seconds)

    def gpus(self) -> list[int]:
        """The numbers of the GPUs that were sampled."""
        found = (re.fullmatch(r"gpu(\d+)_percent", name) for name in self.figures)
        return sorted(int(match.group(1)) for match in found if match)

    def busiest_gpu(self) -> Floats:
        """At each moment the utilisation of the busiest GPU: the processor cannot starve that one."""
        busiest: Floats = np.max([self.figures[f"gpu{gpu}_percent"] for gpu in self.gpus()], axis=0)
        return busiest


def read_samples(series: Series, *, patience: int = 0) -> Samples:
    """Samples between the first and the last step, without the first `patience`.

    What lies before and after (reading images, exporting) would be taken for an idle machine.
    """
    return _to_arrays(_during_training(series)[patience:])


def read_all_samples(series: Series) -> Samples:
    """Also those before the first step and after the last."""
    return _to_arrays(series.system)


def _to_arrays(chosen: list[System]) -> Samples:
    names = sorted({name for sample in chosen for name in sample.values})
    times = np.array([sample.time for sample in chosen])
    return Samples(
        seconds=times - times[0] if len(times) else times,
        figures={
            name: np.array([sample.values.get(name, np.nan) for sample in chosen], dtype=np.float64)
            for name in names
        },
    )


def _during_training(series: Series) -> list[System]:
    steps = train_steps(series)
    if not steps:
        return series.system
    first = steps[0].time - steps[0].seconds.get("total", 0.0)
    return [sample for sample in series.system if first <= sample.time <= steps[-1].time]


def percentile(values: Floats, percent: float) -> float:
    """Of the values that are numbers; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, percent)) if len(finite) else float("nan")


def thin(values: Floats, most: int = 400) -> list[float]:
    """At most so many points, each the mean of its neighbours: enough for a plot."""
    if len(values) <= most:
        return [float(value) for value in values]
    return [float(np.mean(part)) for part in np.array_split(values, most)]
