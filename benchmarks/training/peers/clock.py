"""Times a peer's loop from outside of it: images per second and the share of time spent waiting for data.

The same for both peers, so that they differ in nothing but their own loaders, optimizers and steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

WARMUP_STEPS = 2  # workers start, memory is allocated

Batch = TypeVar("Batch")


class TimeIsUp(Exception):
    """The seconds that were to be measured are over."""


@dataclass
class Clock:
    """`for batch in clock.watch(loader, batch_size): step`; raises TimeIsUp after `seconds` of steps."""

    seconds: float
    waited: float = 0.0
    images: int = 0
    steps: int = 0
    started: float = field(default_factory=time.perf_counter)
    _since: float = 0.0

    def watch(self, loader: Iterable[Batch], batch_size: int) -> Iterator[Batch]:
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            came = time.perf_counter()
            yield batch
            self._count(came - asked, batch_size)

    def _count(self, waited: float, batch_size: int) -> None:
        now = time.perf_counter()
        self.steps += 1
        if self.steps <= WARMUP_STEPS:
            self._since = now
            return
        self.waited += waited
        self.images += batch_size
        if self.seconds and now - self._since >= self.seconds:
            raise TimeIsUp

    def report(self) -> dict[str, float]:
        """images_per_second and data_wait_share of the steps after the warm-up."""
        spent = max(1e-9, time.perf_counter() - self._since)
        return {"images_per_second": self.images / spent, "data_wait_share": self.waited / spent}


def parse_options(description: str) -> argparse.Namespace:
    """What the benchmark asks of a peer."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="folder with train and valid")
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="measure for so long, then end")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.0, help="0 = the recipe's default")
    parser.add_argument("--target", type=float, default=0.0, help="validation accuracy at which to end")
    parser.add_argument("--weights", default="", help="state dict of the backbone, which is then frozen")
    return parser.parse_args()


def say(result: dict[str, float]) -> None:
    """The last line on stdout."""
    print(json.dumps(result), flush=True)
