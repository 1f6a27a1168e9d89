"""How size, brightness and blur are spread over the splits, and whether the splits differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.doctor.files import FileFacts
from training.doctor.findings import (
    HELD_OUT,
    SPLITS,
    Example,
    Finding,
    group_by,
)

PSI_NOTE, PSI_WARN = 0.1, 0.25  # the usual thresholds of credit scoring (Siddiqi 2006)
PSI_BINS = 10
CHANCE = NormalDist().inv_cdf(0.999)  # a shift is told only where it is larger than 999 of 1000 chance ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How one property is spread over the splits."""

    measure: str
    edges: tuple[float, ...]  # of the chart's bins
    shares: dict[str, tuple[float, ...]]  # split -> share of its images per bin
    medians: dict[str, float]
    psi: dict[str, float]  # held-out split -> population stability index against train


MEASURES: dict[str, Callable[[FileFacts], float]] = {
    "size": lambda fact: math.sqrt(fact.width * fact.height),  # side of the square of as many pixels
    "brightness": lambda fact: fact.brightness,
    "blur": lambda fact: math.log10(1.0 + fact.blur),
}
CHART_BINS = 24


def judge_shift(readable: Sequence[FileFacts]) -> list[Finding]:
    """Properties whose distribution in valid or test differs from train's beyond chance."""
    by_split = group_by(readable, lambda fact: fact.split)
    findings = []
    for distribution in build_distributions(readable):
        sizes = {split: len(files) for split, files in by_split.items()}
        shifted = {
            split: psi
            for split, psi in distribution.psi.items()
            if psi >= PSI_NOTE and psi > chance_psi(sizes["train"], sizes[split])
        }
        if shifted:
            findings.append(_shift_finding(distribution, shifted, by_split))
    return findings


def _shift_finding(
    distribution: Distribution, shifted: Mapping[str, float], by_split: Mapping[str, Sequence[FileFacts]]
) -> Finding:
    measure = distribution.measure
    where = " and ".join(f"{split} (PSI {psi:.2f})" for split, psi in shifted.items())
    typical = {split: _typical(by_split[split], measure) for split in ("train", *shifted)}
    return Finding(
        code=f"shift-{measure}",
        severity="warn" if max(shifted.values()) >= PSI_WARN else "note",
        count=len(shifted),
        title=f"{measure.capitalize()} is distributed otherwise in train than in {where}",
        explanation=f"From {PSI_NOTE} on the population stability index (PSI) tells a shift, from {PSI_WARN} "
        "on a large one: the split then measures another task than the one that is taught.",
        action="Find out why (another camera, season, source); split at random, or train on both kinds.",
        examples=tuple(
            Example(
                paths=(typical["train"].path, typical[split].path),
                caption=f"typical of train and of {split}: {measure} "
                f"{describe_measure(measure, distribution.medians['train'])} and "
                f"{describe_measure(measure, distribution.medians[split])}",
            )
            for split in shifted
        ),
        paths=(),
    )


def describe_measure(measure: str, value: float) -> str:
    """A value of a measure for people."""
    if measure == "size":
        return f"{value:.0f} px"
    return f"{value:.2f}" if measure == "blur" else f"{value:.0f}"


def _typical(files: Sequence[FileFacts], measure: str) -> FileFacts:
    middle = sorted(files, key=MEASURES[measure])
    return middle[len(middle) // 2]


def build_distributions(readable: Sequence[FileFacts]) -> list[Distribution]:
    """Every measure over every split; PSI where there is a train split to compare with."""
    by_split = group_by(readable, lambda fact: fact.split)
    ordered = [split for split in ("", *SPLITS) if split in by_split]
    distributions = []
    for measure, value_of in MEASURES.items() if readable else ():
        values = {split: np.array([value_of(fact) for fact in by_split[split]]) for split in ordered}
        low, high = np.percentile(np.concatenate(list(values.values())), [0.5, 99.5])
        pad = max(0.05 * (high - low), 8.0 if measure == "size" else 0.1)
        edges = np.linspace(max(0.0, low - pad), high + pad, CHART_BINS + 1)
        distributions.append(
            Distribution(
                measure=measure,
                edges=tuple(edges.tolist()),
                shares={split: _shares(split_values, edges) for split, split_values in values.items()},
                medians={split: float(median(split_values)) for split, split_values in values.items()},
                psi={
                    split: population_stability_index(values["train"], values[split])
                    for split in HELD_OUT
                    if split in values and "train" in values
                },
            )
        )
    return distributions


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[float, ...]:
    """Outliers are counted in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple((counts / max(len(values), 1)).tolist())


def population_stability_index(
    expected: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]]
) -> float:
    """Sum of (a - e) ln(a / e) over ten quantile bins of `expected` (Siddiqi, Credit Risk Scorecards, 2006).

    a, e: share of a bin, half an image added to each so that an empty one stays finite. A value that fills
    a whole bin (all tiles 128 x 128) gets a bin of its own.
    """
    cuts = np.unique(np.quantile(expected, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    if len(cuts) < PSI_BINS - 1:
        cuts = np.unique(np.concatenate([cuts, np.nextafter(cuts, -np.inf)]))

    def shares(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(cuts, values, side="left"), minlength=len(cuts) + 1)
        return np.asarray((counts + 0.5) / (len(values) + 0.5 * len(counts)))

    e, a = shares(expected), shares(actual)
    return float(((a - e) * np.log(a / e)).sum())


def chance_psi(num_expected: int, num_actual: int) -> float:
    """What PSI stays below in 999 of 1000 splits drawn at random.

    Without a shift it is (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom (Yurdakul & Naranjo,
    2020); the quantile by Wilson and Hilferty's formula.
    """
    freedom = PSI_BINS - 1
    chi_square = freedom * (1 - 2 / (9 * freedom) + CHANCE * math.sqrt(2 / (9 * freedom))) ** 3
    return chi_square * (1 / num_expected + 1 / num_actual)
