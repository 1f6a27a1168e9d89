"""Labels and predictions, counted: ClassImbalance, Confusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.debugging.rules.parameters import RuleError
from training.debugging.rules.rule import Rule, Verdict
from training.debugging.rules.selection import number, read_ending, read_fact, share
from training.debugging.series import EVAL, TRAIN, Series

FEWEST_IMAGES = 5  # of a label before its mispredictions say anything


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassImbalance(Rule):
    """Fires after `samples` labels when one class is `threshold_imbalance` times as frequent as another.

    Or when an under-represented class (under half the mean) is mispredicted in more than
    `threshold_misprediction` of its images while the others are not. The rarest class is counted with two
    standard deviations on top: among many classes one is rare by chance.
    """

    threshold_imbalance: float = 10.0
    threshold_misprediction: float = 0.7
    samples: int = 500
    argmax: bool = False  # accepted; predictions are recorded as classes
    labels_regex: str = ".*labels"  # accepted; there is one set of labels
    predictions_regex: str = ".*predictions"

    def judge(self, series: Series) -> Verdict:
        counts: NDArray[np.int64] | None = None
        window: NDArray[np.int64] | None = None
        for record in series.predictions:
            if record.mode != TRAIN:
                continue
            confusion = np.asarray(record.confusion, dtype=np.int64)
            counts = confusion.sum(1) if counts is None else counts + confusion.sum(1)
            window = confusion if window is None else window + confusion
            if window.sum() < self.samples:
                continue
            verdict = self._imbalance(record.step, counts, series) or self._mispredicted(
                record.step, window, counts, series
            )
            if verdict:
                return verdict
            window = None
        if counts is None or counts.sum() < self.samples:
            seen = 0 if counts is None else int(counts.sum())
            return self.not_applicable(
                f"{seen} labels were recorded; the rule waits for samples={self.samples}."
            )
        return self.fine(
            f"The most frequent class has {counts.max()} of {counts.sum()} labels, the rarest "
            f"{counts.min()}.",
            _bars(counts),
        )

    def _imbalance(self, step: int, counts: NDArray[np.int64], series: Series) -> Verdict | None:
        rarest = counts.min() + 2 * math.sqrt(counts.min()) + 2
        if counts.max() / rarest <= self.threshold_imbalance:
            return None
        return self.issue(
            step=step,
            summary=f"After {counts.sum()} labels {_label(series, int(counts.argmax()))} has "
            f"{counts.max()} and "
            f"{_label(series, int(counts.argmin()))} {counts.min()} (threshold_imbalance "
            f"{number(self.threshold_imbalance)}).",
            advice="Add images of the rare class, or leave out some of the frequent one; accuracy by "
            "class in "
            "report.html says whether it hurts.",
            evidence=_bars(counts),
        )

    def _mispredicted(
        self, step: int, window: NDArray[np.int64], counts: NDArray[np.int64], series: Series
    ) -> Verdict | None:
        support = window.sum(1)
        wrong = 1 - np.diag(window) / np.maximum(support, 1)
        rare = (counts < counts.mean() / 2) & (support >= FEWEST_IMAGES)
        if not rare.any() or 1 - np.trace(window) / window.sum() > self.threshold_misprediction / 2:
            return None
        worst = int(np.where(rare, wrong, -1).argmax())
        if wrong[worst] <= self.threshold_misprediction:
            return None
        return self.issue(
            step=step,
            summary=f"{_label(series, worst)}, with {counts[worst]} of {counts.sum()} labels, is "
            f"mispredicted in "
            f"{share(float(wrong[worst]))} of its images (threshold_misprediction "
            f"{share(self.threshold_misprediction)}).",
            advice="Add images of this class, or copy the ones there are until it has half as many as "
            "the others.",
            evidence={"class": list(range(len(wrong))), "share mispredicted": wrong.tolist()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion(Rule):
    """Fires when, after the last validation pass, a class is right in less than `min_diag` of its images.

    Or when more than `max_off_diag` of a class are taken for another. AWS divides the diagonal by its own
    sum, which only one class could satisfy: here by the class's images.
    """

    category_no: int | None = None
    min_diag: float = 0.9
    max_off_diag: float = 0.1

    def judge(self, series: Series) -> Verdict:
        passes = [record for record in series.predictions if record.mode == EVAL]
        if not passes:
            return self.not_applicable("There was no validation pass.")
        counts = np.asarray(passes[-1].confusion, dtype=np.float64)
        if self.category_no not in (None, len(counts)):
            raise RuleError(
                f"Confusion: category_no={self.category_no}, but there are {len(counts)} classes."
            )
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        right = np.where(counts.sum(1) > 0, np.diag(shares), 1.0)
        worst = int(right.argmin())
        mixed = shares - np.diag(np.diag(shares))
        pair = np.unravel_index(int(mixed.argmax()), mixed.shape)
        if not self._is_over(series, len(passes)):
            return self.not_applicable(
                f"Judged after the last validation pass; so far the worst class is right in "
                f"{share(float(right[worst]))}."
            )
        evidence = {
            "class": list(range(len(right))),
            "share right": right.tolist(),
            "min_diag": self.min_diag,
        }
        words = (
            f"{_label(series, worst)} is right in {share(float(right[worst]))} of its images, and "
            f"{share(float(mixed[pair]))} of {_label(series, int(pair[0]))} are taken for "
            f"{_label(series, int(pair[1]))}"
        )
        if right[worst] < self.min_diag or mixed[pair] > self.max_off_diag:
            return self.issue(
                step=passes[-1].step,
                summary=f"{words} (min_diag {number(self.min_diag)}, max_off_diag "
                f"{number(self.max_off_diag)}).",
                advice="Look at both classes' images side by side (report.html shows the most confused "
                "pairs, "
                "python -m training.doctor finds wrong labels), then add images of what is confused.",
                evidence=evidence,
            )
        return self.fine(f"{words}.", evidence)

    def _is_over(self, series: Series, passes: int) -> bool:
        planned = (read_fact(series, "job") or {}).get("epochs", 1)
        return passes >= planned or read_ending(series, "ended") is not None


def _label(series: Series, target: int) -> str:
    labels = read_fact(series, "labels") or []
    return str(labels[target]) if target < len(labels) else f"class {target}"


def _bars(counts: NDArray[np.int64]) -> dict[str, list[float]]:
    return {"class": [float(n) for n in range(len(counts))], "labels": counts.astype(float).tolist()}
