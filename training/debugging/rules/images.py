"""What goes into the network: CheckInputImages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.debugging.rules.rule import Rule, Verdict
from training.debugging.rules.selection import number
from training.debugging.series import TRAIN, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInputImages(Rule):
    """Fires when a channel's mean is over `threshold_mean` away from 0 after `threshold_samples` images.

    The images are the network's own input, normalised and augmented.
    """

    threshold_mean: float = 0.2
    threshold_samples: int = 500
    regex: str = ".*hybridsequential0_input_0"  # accepted; the network has one input
    channel: int = 1  # accepted; the dimension that channels lie along, always 1 here

    def judge(self, series: Series) -> Verdict:
        sums, images = np.zeros(3), 0.0
        steps: list[float] = []
        means: list[list[float]] = []
        for record in series.tensors:
            for found in record.values.values() if record.collection == "inputs" else ():
                if record.mode != TRAIN or "mean_0" not in found:
                    continue
                count = found.get("images", 1.0)
                images += count
                sums += count * np.array([found[f"mean_{channel}"] for channel in range(3)])
                steps.append(float(record.step))
                means.append((sums / images).tolist())
                if images >= self.threshold_samples and np.abs(sums / images).max() > self.threshold_mean:
                    return self._issue(record.step, steps, means, images)
        if images < self.threshold_samples:
            return self.not_applicable(
                f"{images:.0f} images were recorded; the rule waits for threshold_samples="
                f"{self.threshold_samples}."
            )
        worst = np.abs(means[-1]).max()
        return self.fine(
            f"After {images:.0f} images the channel means are within {number(float(worst))} of 0.",
            self._evidence(steps, means),
        )

    def _issue(self, step: int, steps: list[float], means: list[list[float]], images: float) -> Verdict:
        worst = int(np.abs(means[-1]).argmax())
        return self.issue(
            step=step,
            summary=f"After {images:.0f} images the mean of the {('red', 'green', 'blue')[worst]} channel is "
            f"{number(means[-1][worst])} (threshold_mean {number(self.threshold_mean)}).",
            advice="The images are darker, brighter or differently scaled than the normalisation "
            "expects. Check "
            "that they hold 0-255 and not 0-1; with real photos that are simply so, batch norm copes, and a "
            "mean within 1 is harmless.",
            evidence=self._evidence(steps, means),
        )

    def _evidence(self, steps: list[float], means: list[list[float]]) -> dict[str, list[float] | float]:
        curves = {name: [row[place] for row in means] for place, name in enumerate(("red", "green", "blue"))}
        return {"step": steps, **curves, "threshold": self.threshold_mean, "-threshold": -self.threshold_mean}
