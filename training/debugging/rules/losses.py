"""Loss curves: Overfit, Overtraining, LossNotDecreasing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.debugging.rules.parameters import RuleError
from training.debugging.rules.rule import Evidence, Rule, Verdict
from training.debugging.rules.selection import COOLED_DOWN, eval_steps, number, share, train_steps
from training.debugging.series import Series, Step

MODES = ("EVAL", "TRAIN", "GLOBAL")
SETTLED = 0.02  # of a validation loss: what it falls by from pass to pass while the network still learns
WINDOWS = 3  # without progress, before noise can be ruled out
NOISE = 3.0  # standard errors
EXPLOSION = 4.0  # times the loss before: no noise rises like that


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfit(Rule):
    """Fires when the validation loss is `ratio_threshold` above the training loss `patience` times in a row.

    A validation loss is compared with the mean training loss since the validation before it, and counts once
    it no longer falls by SETTLED from pass to pass: a young network's, whose batch norms have not yet seen
    enough, is far above the training loss without any overfitting.
    """

    tensor_regex: str | None = None  # accepted; there is one loss
    start_step: int = 0
    patience: int = 1
    ratio_threshold: float = 0.1

    def judge(self, series: Series) -> Verdict:
        pairs = pair_losses(series)
        if not pairs:
            return self.not_applicable("There was no validation pass to compare the training loss with.")
        ratios = [(step, (valid - train) / max(abs(train), 1e-12)) for step, train, valid in pairs]
        evidence: Evidence = {
            "step": [step for step, _, _ in pairs],
            "training loss": [train for _, train, _ in pairs],
            "validation loss": [valid for _, _, valid in pairs],
        }
        in_a_row, before = 0, math.inf
        for (step, ratio), (_, train, valid) in zip(ratios, pairs, strict=True):
            counts = step >= self.start_step and valid > (1 - SETTLED) * before
            in_a_row = in_a_row + 1 if counts and ratio > self.ratio_threshold else 0
            before = valid
            if in_a_row >= self.patience:
                return self._issue(step, train, valid, evidence)
        step, ratio = ratios[-1]
        return self.fine(
            f"The last validation loss is {share(abs(ratio))} {'above' if ratio > 0 else 'below'} the "
            f"training "
            f"loss (ratio_threshold {share(self.ratio_threshold)}, patience {self.patience}).",
            evidence,
        )

    def _issue(self, step: int, train: float, valid: float, evidence: Evidence) -> Verdict:
        return self.issue(
            step=step,
            summary=f"At step {step} the validation loss {number(valid)} is "
            f"{share(valid / max(train, 1e-12) - 1)} above the training loss {number(train)} "
            f"(ratio_threshold {share(self.ratio_threshold)}).",
            advice="The network learns the training images by heart. More images help most; then "
            "augmentation (photo or aerial), weight_decay x 10, dropout=0.2, or a smaller architecture. "
            "The artifact holds the best epoch on validation already, not the last.",
            evidence=evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overtraining(Rule):
    """Fires when the validation loss has not improved by `delta` for `patience_validation` passes.

    Or the mean training loss between two passes for `patience_train` of them. (AWS leaves open whether `and`
    or `or` joins the two, and whether passes or saved steps are counted.)
    """

    patience_train: int = 5
    patience_validation: int = 10
    delta: float = 0.01

    def judge(self, series: Series) -> Verdict:
        pairs = pair_losses(series)
        if not pairs:
            return self.not_applicable("There was no validation pass.")
        steps = [step for step, _, _ in pairs]
        curves = {
            "validation": ([valid for _, _, valid in pairs], self.patience_validation),
            "training": ([train for _, train, _ in pairs], self.patience_train),
        }
        evidence: Evidence = {"step": steps} | {
            f"{name} loss": losses for name, (losses, _) in curves.items()
        }
        for name, (losses, patience) in curves.items():
            place = _first_without_progress(losses, patience, self.delta)
            if place is not None:
                best = int(np.argmin(losses[: place + 1]))
                return self.issue(
                    step=steps[place],
                    summary=f"At step {steps[place]} the {name} loss had not improved by "
                    f"{number(self.delta)} for {patience} epochs; its best was "
                    f"{number(losses[best])} at step {steps[best]}.",
                    advice=f"Train fewer epochs: {best + 1} instead of {len(steps)} would have cost "
                    f"{share(1 - (best + 1) / len(steps))} less time for the same network.",
                    evidence=evidence,
                )
        return self.fine(
            f"Training and validation loss kept improving over {len(steps)} epochs "
            f"(patience {self.patience_train} and {self.patience_validation}).",
            evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossNotDecreasing(Rule):
    """Fires when the loss of `num_steps` fell by less than `diff_percent`, or rose.

    Compared are the means of adjacent windows of `num_steps`, not single batches: one batch's loss is noise.
    A stall is 3 windows in a row of which none is `diff_percent` below the best so far, nor their mean below
    that of the 3 before; unless the loss has fallen to a hundredth or the schedule has let the learning rate
    go. A rise over the last 3 windows by
    `increase_threshold_percent` counts at once when it is more than 3 standard errors.
    """

    collection_names: str | None = None  # accepted; there is one loss
    tensor_regex: str | None = None
    use_losses_collection: bool = True
    num_steps: int = 10
    diff_percent: float = 0.1
    increase_threshold_percent: float = 5.0
    mode: str = "GLOBAL"

    def judge(self, series: Series) -> Verdict:
        steps = self._steps(series)
        count = len(steps) // self.num_steps
        if count < 2:
            return self.not_applicable(
                f"{len(steps)} losses were recorded; two windows of num_steps={self.num_steps} are compared."
            )
        losses = np.array([step.loss for step in steps])[: count * self.num_steps]
        table = losses.reshape(count, self.num_steps)
        means, errors = table.mean(axis=1), table.std(axis=1) / math.sqrt(self.num_steps)
        ends = [steps[(window + 1) * self.num_steps - 1].step for window in range(count)]
        evidence: Evidence = {"step": ends, f"mean loss of {self.num_steps} steps": means.tolist()}
        resting = self._resting(steps, count) | (means < 0.01 * means[0])
        best, stalled = means[0], 0
        for window in range(1, count):
            highest = means[max(0, window - WINDOWS) : window].max()
            rise = means[window] - highest
            high = self.increase_threshold_percent / 100 * abs(highest)
            noise = NOISE * math.hypot(errors[window], errors[window - 1])
            falls = 1 - self.diff_percent / 100
            stalled = 0 if means[window] < best * falls else stalled + 1
            if not rise <= max(high, min(noise, EXPLOSION * abs(highest))):
                return self._issue(ends[window], float(highest), float(means[window]), evidence)
            before, last = _adjacent_means(means[: window + 1])
            if stalled >= WINDOWS and not last < before * falls and not resting[window]:
                return self._issue(ends[window], before, last, evidence)
            best = min(best, means[window])
        return self.fine(
            f"The mean loss of {self.num_steps} steps went from {number(means[0])} to {number(means[-1])}.",
            evidence,
        )

    def _resting(self, steps: list[Step], count: int) -> NDArray[np.bool_]:
        """(count,) windows in which the schedule has let the learning rate go."""
        rates = np.array([step.learning_rate for step in steps])
        if not rates.any():  # validation passes have none
            return np.zeros(count, dtype=bool)
        windows = rates[: count * self.num_steps].reshape(count, self.num_steps).mean(axis=1)
        return np.asarray(windows < COOLED_DOWN * rates.max())

    def _issue(self, step: int, before: float, after: float, evidence: Evidence) -> Verdict:
        change = 100 * (after - before) / max(abs(before), 1e-12)
        rises = change > self.increase_threshold_percent or not math.isfinite(change)
        advice = (
            "Divide learning_rate by 10, or lengthen warmup_epochs."
            if rises
            else "If the network is good enough, stop here; if not, raise learning_rate x 3, lower "
            "weight_decay, or take a larger architecture."
        )
        did = f"rose by {number(change)} %" if not change <= 0 else f"fell by only {number(-change)} %"
        return self.issue(
            step=step,
            summary=f"The mean loss of {self.num_steps} steps {did} up to step {step}, from {number(before)} "
            f"to {number(after)} (diff_percent {number(self.diff_percent)}).",
            advice=advice,
            evidence=evidence,
        )

    def _steps(self, series: Series) -> list[Step]:
        if self.mode.upper() not in MODES:
            raise RuleError(f"LossNotDecreasing: mode={self.mode!r} is not one of {', '.join(MODES)}.")
        return eval_steps(series) if self.mode.upper() == "EVAL" else train_steps(series)


def _adjacent_means(means: NDArray[np.float64]) -> tuple[float, float]:
    """Of the last WINDOWS and of the WINDOWS before them; (inf, ...) where there are too few."""
    if len(means) < 2 * WINDOWS:
        return math.inf, float(means[-WINDOWS:].mean())
    return float(means[-2 * WINDOWS : -WINDOWS].mean()), float(means[-WINDOWS:].mean())


def pair_losses(series: Series) -> list[tuple[int, float, float]]:
    """(step, mean training loss since the last one, validation loss) of every validation pass."""
    pairs, training = [], train_steps(series)
    since = 0
    for valid in eval_steps(series):
        before = [step for step in training if since <= step.step < valid.step]
        if before:
            images = sum(step.images for step in before)
            mean = sum(step.loss * step.images for step in before) / max(images, 1)
            pairs.append((valid.step, mean, valid.loss))
        since = valid.step
    return pairs


def _first_without_progress(losses: list[float], patience: int, delta: float) -> int | None:
    """Where `patience` losses in a row failed to undercut the best before them by `delta`."""
    best, waited = math.inf, 0
    for place, loss in enumerate(losses):
        improved = loss < best - delta
        best, waited = (loss, 0) if improved else (best, waited + 1)
        if waited >= patience:
            return place
    return None
