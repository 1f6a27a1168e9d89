"""Whether the ranks of a job live, told through a store on the first host; and what they say at the end.

A process that waits for a dead one inside a collective cannot look: threads do it, and end the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch.distributed.distributed_c10d import Store

from training.distributed import Place
from training.job import write_failure
from training.launch import AGAIN

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
GONE_SECONDS = 60.0  # of silence
SUSPECT_SECONDS = 8.0  # of silence, once a connection broke: somebody is gone, this says who
FAREWELL_SECONDS = 10.0  # the first rank keeps the store open so long for the others to read the end


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the joint work ended: the first to write it into the store decides."""

    kind: Literal["finished", "stopped", "failed", "gone"]
    rank: int
    text: str = ""


def post(store: Store, end: End) -> End:
    """The first end that is written stands, and is returned."""
    return End(**json.loads(store.compare_set("end", "", json.dumps(dataclasses.asdict(end)))))


class Watch:
    """Shows that this rank lives, looks whether the others do, and ends the process where the work has ended.

    In threads, because a process that waits for a dead one inside a collective cannot look; it ends the
    process at once, because nothing else gets it out of there.
    """

    def __init__(self, store: Store, place: Place, failure_path: Path) -> None:
        self._store = store
        self._place = place
        self._failure_path = failure_path
        self._patience_seconds = GONE_SECONDS
        self._answered = time.monotonic()  # when the store last did
        self._beats: dict[int, tuple[bytes, float]] = {}  # rank -> its last sign of life, and when it came
        self._finished = threading.Event()
        self._over = threading.Event()
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._look_on, self._guard)]

    def start(self) -> None:
        """Once all ranks are there."""
        self._answered = time.monotonic()
        for thread in self._threads:
            thread.start()

    def look(self, beat: str) -> End | None:
        """Give a sign of life; the end, where somebody has written one or has been silent for too long."""
        ranks = range(self._place.size)
        try:
            self._store.set(f"beat/{self._place.rank}", beat)
            written, *beats = self._store.multi_get(["end", *(f"beat/{rank}" for rank in ranks)])
        except RuntimeError:
            return End(kind="gone", rank=0, text="its connections are closed")
        self._answered = now = time.monotonic()
        if written:
            return End(**json.loads(written))
        self._beats |= {
            rank: (content, now)
            for rank, content in enumerate(beats)
            if self._beats.get(rank, (b"",))[0] != content
        }
        rank, (_, seen) = min(self._beats.items(), key=lambda item: item[1][1])
        if now - seen <= self._patience_seconds:
            return None
        return self.post(End(kind="gone", rank=rank, text=f"no sign of life for {now - seen:.0f} seconds"))

    def post(self, end: End) -> End:
        """The first end stands, and is returned."""
        return post(self._store, end)

    def name_the_lost(self) -> None:
        """A connection broke: whoever is silent now is gone; the look that finds it ends the process."""
        self._patience_seconds = SUSPECT_SECONDS
        if self._leaving.wait(SUSPECT_SECONDS + 5 * BEAT_SECONDS):
            time.sleep(
                2 * FAREWELL_SECONDS
            )  # that the process ends meanwhile is the cause, not what broke here

    def wait_until_finished(self) -> None:
        """Until the first rank has written everything: where one container ends, others may be ended too."""
        self._finished.wait()

    def say_farewell(self) -> None:
        """Stop watching; the first rank, whose the store is, leaves when the others have."""
        self._over.set()
        with contextlib.suppress(RuntimeError):
            left = self._store.add("left", 1)
            deadline = time.monotonic() + FAREWELL_SECONDS
            while self._place.rank == 0 and left < self._place.size and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self._store.add("left", 0)

    def leave(self, end: End) -> None:
        """End this process as another rank ended the work."""
        self._leaving.set()
        host = self._place.host_of(end.rank)
        if end.kind == "stopped":
            logger.warning("host %s was stopped before the first step: nothing to save", host)
        else:
            what = "is gone" if end.kind == "gone" else "failed"
            own = end.kind == "failed" and host == self._place.host
            sentence = end.text if own else f"host {host} {what}: {end.text}"
            write_failure(self._failure_path, sentence)
            logger.error("%s", sentence)
        if not (end.kind == "gone" and end.rank == 0):
            self.say_farewell()
        sys.stdout.flush()
        os._exit({"stopped": 0, "gone": AGAIN}.get(end.kind, 1))

    def _look_on(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_SECONDS):
            beat += 1
            end = self.look(str(beat))
            if self._over.is_set() or end is None or end.rank == self._place.rank:
                continue
            if end.kind == "finished":
                self._finished.set()
            else:
                self.leave(end)

    def _guard(self) -> None:
        """A store whose host has fallen silent never answers, and `look` waits for ever."""
        while not self._over.wait(BEAT_SECONDS):
            silence = time.monotonic() - self._answered
            if silence > GONE_SECONDS:
                self.leave(End(kind="gone", rank=0, text=f"no answer for {silence:.0f} seconds"))
