"""A progress bar on a terminal; elsewhere (CloudWatch, a file) a plain line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Pass `items` through, telling on stderr how far they are and how fast they go."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, leave=False)
        return
    started = said = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= LINE_SECONDS:
            logger.info("%s: %d/%d per_second=%.1f", what, count, total, count / (now - started))
            said = now
