"""SIGTERM: SageMaker stops a job with it (time limit, spot reclaim, tuning) and kills 120 seconds later."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)


class Stopped(BaseException):
    """The signal came while something was done that a stopped job has no time for."""


class StopSignal(threading.Event):
    """SIGTERM or SIGINT: ends the process at once until `defer`, then sets the event, a second one kills.

    The loop looks at the event after each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._deferred = False
        self._interrupts = False

    @classmethod
    def install(cls) -> StopSignal:
        """Take the signals over, for the rest of the process: as PID 1 there is no default for them."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop._receive)
        return stop

    def defer(self) -> None:
        """From here on there is something to save first."""
        self._deferred = True

    @contextlib.contextmanager
    def interrupting(self, *, at_once: bool) -> Iterator[None]:
        """Inside, and at once where it has come before, the signal raises Stopped."""
        self._interrupts = True
        try:
            if at_once or self.is_set():
                raise Stopped
            yield
        finally:
            self._interrupts = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred:
            logger.warning("%s before the first step: nothing to save", signal.Signals(number).name)
            sys.exit(0)
        for either in (signal.SIGTERM, signal.SIGINT):  # before `set`, which a second one would find locked
            signal.signal(either, signal.SIG_DFL)
        self.set()
        logger.warning("%s: finishing the step, then checkpoint and artifact", signal.Signals(number).name)
        if self._interrupts:
            raise Stopped
