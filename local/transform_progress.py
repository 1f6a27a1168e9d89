"""How far a transform job is, how fast, and how much longer: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0


class TransformProgress:
    """Counts records for people and `units` (objects, or bytes of split ones) for the time left."""

    def __init__(self, *, total: int, unit: str) -> None:
        self.records = 0
        self._units, self._total = 0, total
        self._started = self._said = time.monotonic()
        self._is_bytes = unit == "B"
        self._bar = (
            tqdm(total=total, unit=unit, unit_scale=self._is_bytes, desc="transform", leave=False)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def records_per_second(self) -> float:
        """Since the start."""
        return self.records / max(time.monotonic() - self._started, 1e-9)

    def add(self, *, records: int, units: int) -> None:
        """Something was answered, or given up."""
        self.records += records
        self._units += units
        now = time.monotonic()
        if self._bar is not None:
            if self._is_bytes:  # else the bar's own rate is that of images
                self._bar.set_postfix_str(f"{self.records_per_second:.0f} images/s", refresh=False)
            self._bar.update(units)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            share = min(self._units / max(self._total, 1), 1.0)
            left = (now - self._started) * (1 - share) / max(share, 1e-9)
            logger.info(
                "transform: %.1f %% images=%d images_per_second=%.1f seconds_left=%.0f",
                100 * share,
                self.records,
                self.records_per_second,
                left,
            )
