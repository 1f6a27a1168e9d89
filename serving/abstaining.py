"""`abstain=0.05`: answers that would be wrong more often than that say so, and those on strange pictures.

    X-Amzn-SageMaker-Custom-Attributes: abstain=0.05
    {"predictions": [...], "abstain": true, "reason": "unsure", "out_of_distribution": 0.31}

The probabilities are calibrated then. `out_of_distribution` is the share of the validation images that look
more usual than this one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Manifest
from artifact.calibration import Calibration
from artifact.looks import Looks
from serving.answers import Remark, Row
from serving.errors import BadRequest, NotCalibrated, RequestError
from serving.messages import JSON, JSON_LINES
from serving.pictures import Source

STRANGE = 0.99  # more usual than this one is nearly every validation image


class Judge:
    """What is said of each picture of one request besides its labels."""

    def __init__(self, calibration: Calibration, looks: Looks | None, risk: float) -> None:
        self._calibration = calibration
        self._looks = looks
        self._least_confidence = calibration.least_confidence(risk)
        self._rarities: dict[int, float] = {}

    def watch(self, sources: Sequence[Source]) -> Sequence[Source]:
        """The same pictures, looked at when they are decoded."""
        return [functools.partial(self._look, index, source) for index, source in enumerate(sources)]

    def calibrate(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with calibrated log-probabilities."""
        return [
            row if isinstance(row, RequestError) else self._calibration.calibrate(row).astype(np.float32)
            for row in rows
        ]

    def remark(self, rows: Sequence[Row]) -> list[Remark]:
        """Of each calibrated row."""
        return [
            {} if isinstance(row, RequestError) else self._judge(row, self._rarities.get(index))
            for index, row in enumerate(rows)
        ]

    def _look(self, index: int, source: Source) -> NDArray[np.uint8]:
        pixels = source()
        if self._looks is not None:
            self._rarities[index] = self._looks.rarity(pixels)
        return pixels

    def _judge(self, row: NDArray[np.float32], rarity: float | None) -> Remark:
        reason = None
        if float(np.exp(row.max())) < self._least_confidence:
            reason = "unsure"
        if rarity is not None and rarity > STRANGE:
            reason = "out_of_distribution"
        return {"abstain": reason is not None, "reason": reason, "out_of_distribution": rarity}


def build_judge(risk: float, manifest: Manifest | None, answer_type: str) -> Judge:
    """Raises BadRequest, or NotCalibrated where the artifact does not hold what it takes."""
    if answer_type not in (JSON, JSON_LINES):
        raise BadRequest(f"{answer_type} cannot say abstain.", hint=f"Ask for {JSON} or {JSON_LINES}.")
    if manifest is None or manifest.calibration is None:
        raise NotCalibrated(
            "This artifact does not know how far its probabilities can be believed.",
            hint="Train with a valid split of 50 images or more; ask without abstain=.",
        )
    return Judge(manifest.calibration, manifest.looks, risk)


def parse_risk(text: str) -> float:
    """The share of wrong answers a client bears. Raises BadRequest naming the value."""
    try:
        risk = float(text)
    except ValueError:
        risk = -1.0
    if not 0.0 < risk < 1.0:
        raise BadRequest(
            f"abstain={text!r} is not a share of wrong answers.",
            hint="Send one between 0 and 1, as abstain=0.05.",
        )
    return risk
