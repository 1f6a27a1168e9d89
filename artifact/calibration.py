"""How far a probability can be believed, measured on the validation split and kept in the manifest.

The log-probabilities that are recorded and served stay as the network gave them; a client that asks to be
told when to abstain gets these besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predictions import log_softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature, and what answering only above a confidence would cost."""

    temperature: float  # the logits are divided by it (Guo et al. 2017, https://arxiv.org/abs/1706.04599)
    # (confidence, risk): the share of wrong answers where only those of at least this calibrated confidence
    # are given. Ascending in confidence, descending in risk; all images are answered at the first.
    curve: tuple[tuple[float, float], ...]

    def calibrate(self, log_probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(..., num_classes) log-probabilities as the network gave them -> calibrated ones."""
        return scale(log_probabilities, self.temperature)

    def least_confidence(self, risk: float) -> float:
        """Below it an answer is not worth giving at this share of errors; above 1 where none is."""
        return next((confidence for confidence, found in self.curve if found <= risk), 1.1)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """As in the manifest. Raises KeyError, TypeError or ValueError."""
        temperature = float(stored["temperature"])
        if not 0 < temperature < float("inf"):
            raise ValueError(f"calibration has a temperature of {temperature}")
        curve = tuple((float(confidence), float(risk)) for confidence, risk in stored["curve"])
        return cls(temperature=temperature, curve=curve)


def scale(log_probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Logits up to a constant, as log-probabilities are, divided by the temperature and normalised again."""
    return log_softmax(np.asarray(log_probabilities, dtype=np.float64) / temperature)
