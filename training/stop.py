"""SIGTERM: SageMaker stops a job with it (time limit, spot reclaim, tuning) and kills 120 seconds later."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

logger = logging.getLogger(__name__)


class StopSignal(threading.Event):
    """Set by SIGTERM or SIGINT; the loop looks at it after each step. A second signal kills at once."""

    @classmethod
    def install(cls) -> StopSignal:
        """Take the signals over, for the rest of the process."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop._receive)
        return stop

    def _receive(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self.set()
        logger.warning("%s: finishing the step, then checkpoint and artifact", signal.Signals(number).name)
