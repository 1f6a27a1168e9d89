"""The processes that predict, as the HTTP side sees them: who is free, who is next, who died.

Requests wait here, in one bounded queue in the order they came, and go whole to whichever process is free
first; so it does not matter on which connections they arrive. Runs on gevent: one greenlet per request.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from serving import boot, wire
from serving.errors import ClientGone, DeadlinePassed, Overloaded, ServerFailed
from serving.health import ErrorRate
from serving.logs import current_ids
from serving.messages import PROCESS, Answer, Query, Report
from serving.processes import Child

DUMP_SECONDS = 1.0  # for a stuck process to write its stacks
RESTART_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before the nth attempt in a row that failed

logger = logging.getLogger(__name__)

_Reply: TypeAlias = "AsyncResult[tuple[dict[str, Any], bytes]]"


class Events(Protocol):
    """Who wants to know: the metrics."""

    def ready(self, info: dict[str, Any]) -> None:
        """Every first process has loaded the model that `info` describes."""

    def restarted(self) -> None:
        """A process is started in place of one that ended."""

    def queued(self, waiting: int) -> None:
        """The queue has got longer or shorter."""

    def answered(self, report: Report, *, queue_seconds: float) -> None:
        """A process answered, after the request had waited so long for it."""

    def watched(self, pictures: Sequence[tuple[int, ...]]) -> None:
        """The drift bins of pictures that were answered before."""


class ProcessDied(Exception):
    """The process ended before it answered; whatever it had in hand may be asked again."""


class Process:
    """One process that predicts, and the requests it has in hand."""

    def __init__(self, child: Child) -> None:
        self.pid = child.pid
        self.index = child.index
        self.ready: dict[str, Any] = {}
        self.free_slots = 0
        self.begun = 0.0  # what it has in hand, time.monotonic(); 0 while it has nothing
        self._channel = wire.Channel(socket.socket(fileno=child.socket_fd))
        self._write_lock = BoundedSemaphore()
        self._replies: dict[int, _Reply] = {}
        self._ids = itertools.count()
        self._alive = 0.0  # when it last gave a sign of life, time.monotonic()

    def wait_until_ready(self) -> None:
        """Raises EOFError where it was killed, and RuntimeError with its own sentence where it refused."""
        fields, _ = self._channel.receive()
        if "error" in fields:
            raise RuntimeError(fields["error"])
        self.ready = fields["ready"]
        self.free_slots = self.ready["capacity"]

    @property
    def num_in_hand(self) -> int:
        """Requests it was given and has not answered."""
        return int(self.ready["capacity"]) - self.free_slots

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing in hand."""
        return self.num_in_hand == 0

    def count_slots(self, alone: bool) -> int:
        """That a request takes: all, where it shall have the process to itself."""
        return int(self.ready["capacity"]) if alone else 1

    def can_take(self, alone: bool) -> bool:
        """Whether a request may be handed to it now."""
        return self.free_slots >= self.count_slots(alone)

    def left(self, seconds: float) -> float:
        """Seconds until it should have answered what it has in hand, of `seconds` each.

        One that is late, held up on its core or by many pictures, will need as long again for each.
        """
        if self.is_idle:
            return 0.0
        begun = time.monotonic() - self.begun
        return self.num_in_hand * max(seconds, begun) - min(seconds, begun)

    def ask(self, query: Query, *, seconds: float) -> tuple[Answer, Report]:
        """The answer, and what was measured.

        Raises ProcessDied, or gevent.Timeout after `seconds` without a sign of life.
        """
        reply: _Reply = AsyncResult()
        number = next(self._ids)
        self._replies[number] = reply
        try:
            fields = {"id": number, "headers": query[1:], "about": tuple(current_ids())}
            with self._write_lock:
                self._channel.send(fields, query.body)
            sent = time.monotonic()
            while not reply.ready() and (left := max(sent, self._alive) + seconds - time.monotonic()) > 0:
                reply.wait(timeout=left)
            answered = reply.get(timeout=0)
        except OSError as error:
            raise ProcessDied from error
        finally:
            self._replies.pop(number, None)
        assert answered is not None
        said, body = answered
        headers = said["headers"] | {PROCESS: f"{self.index}-{self.pid}"}
        return Answer(said["status"], headers, body), Report(*said["report"])

    def deliver_replies(self, events: Events) -> None:
        """Hand out answers until the process ends."""
        with suppress(EOFError, OSError):
            while True:
                fields, body = self._channel.receive()
                self._alive = time.monotonic()
                if "pictures" in fields:
                    events.watched(fields["pictures"])
                if "status" not in fields:
                    continue
                if reply := self._replies.get(fields["id"]):
                    reply.set((fields, body))

    def bury(self) -> None:
        """Fail what it had in hand, and clear it away."""
        self.free_slots = 0
        for reply in list(self._replies.values()):
            reply.set_exception(ProcessDied())
        self._channel.close()
        self._signal(signal.SIGKILL)
        for _ in range(50):
            try:  # gunicorn's master reaps those it started
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:
                return
            gevent.sleep(0.1)

    def dump_and_die(self) -> None:
        """Its stacks go to the log (faulthandler), then it ends; SIGKILL follows for one that is stopped."""
        self._signal(signal.SIGABRT)
        gevent.spawn_later(DUMP_SECONDS, self._signal, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class _Turn:
    """A request that waits for a process."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone  # with nothing else in the process's hand
        self.process: AsyncResult[Process] = AsyncResult()


class Pool:
    """The processes and the queue before them."""

    def __init__(
        self,
        children: list[Child],
        *,
        start_child: Callable[[int], Child],
        refuse: Callable[[str], None],
        events: Events,
        queue_limit: int,
        stuck_seconds: float,
    ) -> None:
        self.size = len(children)
        self.info: dict[str, Any] = {}  # of the model; empty until every first process is ready
        self._children = children
        self._start_child = start_child
        self._refuse = refuse
        self._events = events
        self._error_rate = ErrorRate()
        self._queue_limit = queue_limit
        self._stuck_seconds = stuck_seconds
        self._processes: list[Process] = []
        self._waiting: deque[_Turn] = deque()
        self._in_flight = 0
        self._seconds = 0.1  # from one answer of a busy process to its next, exponentially smoothed

    def start(self) -> None:
        """Watch the children from now on; the model is there once `info` is."""
        for child in self._children:
            gevent.spawn(self._keep_alive, child)

    def unhealthy_reason(self) -> str | None:
        """loading, draining, restarting or failing; None where all is well."""
        if boot.draining:
            return "draining"
        if not self.info:
            return "loading"
        if not self._processes:
            return "restarting"
        return "failing" if self._error_rate.is_failing() else None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def capacity(self) -> int:
        """Requests with which no process waits for the next, over all of them."""
        return self.size * int(self.info.get("transforms", 1))

    def ask(self, query: Query, *, seconds: float, is_gone: Callable[[], bool] = lambda: False) -> Answer:
        """The answer, begun within `seconds` and if the client still waits then, or not at all.

        Raises Overloaded, DeadlinePassed, ClientGone or ServerFailed.
        A request whose process dies, or hangs with several in hand, is asked once more: predictions have no
        side effects. Then it has a process to itself, so that what happens is its own doing, and is told.
        """
        asked = time.monotonic()
        deadline = asked + seconds
        for alone in (False, True):
            process = self._acquire(_Turn(alone), deadline, is_gone)
            started = time.monotonic()
            try:
                answer, report = process.ask(query, seconds=self._stuck_seconds)
                self._seconds += 0.05 * (time.monotonic() - process.begun - self._seconds)
            except ProcessDied:
                self._retire(process)
                logger.warning("event=asked_again pid=%d", process.pid)
                continue
            except gevent.Timeout as error:
                logger.error("event=stuck pid=%d seconds=%.0f", process.pid, self._stuck_seconds)
                self._retire(process)
                has_company = process.num_in_hand > 1  # read before it ends
                process.dump_and_die()
                if alone or not has_company:
                    raise ServerFailed("The prediction did not come back.") from error
                logger.warning("event=asked_again pid=%d", process.pid)
                continue
            finally:
                self._release(process, alone)
            self._events.answered(report, queue_seconds=started - asked)
            self._error_rate.add(failed=answer.status >= 500)
            return answer
        raise ServerFailed("Two processes died on this request.")

    def retry_after(self) -> int:
        """Whole seconds in which the present queue should be done."""
        return max(1, math.ceil(self._seconds * (self.waiting + 1) / max(1, len(self._processes))))

    def _acquire(self, turn: _Turn, deadline: float, is_gone: Callable[[], bool]) -> Process:
        free = [process for process in self._processes if process.can_take(turn.alone)]
        if free and not self._waiting:
            return self._take(min(free, key=lambda process: process.left(self._seconds)), turn.alone)
        if turn.alone:
            self._waiting.appendleft(turn)  # it has waited before
        elif self.waiting >= self._queue_limit:
            raise Overloaded(self.retry_after())
        else:
            self._waiting.append(turn)
        self._events.queued(self.waiting)
        try:
            process = turn.process.get(timeout=max(0.0, deadline - time.monotonic()))
        except gevent.Timeout as error:
            if turn.process.value is not None:  # both at once
                self._release(turn.process.value, turn.alone)
            else:
                self._waiting.remove(turn)
                self._events.queued(self.waiting)
                for process in self._processes:  # that it kept free
                    self._hand_out(process)
            raise DeadlinePassed(self.retry_after()) from error
        assert process is not None
        if is_gone():
            self._release(process, turn.alone)
            raise ClientGone
        return process

    def _take(self, process: Process, alone: bool) -> Process:
        if process.is_idle:
            process.begun = time.monotonic()
        process.free_slots -= process.count_slots(alone)
        self._in_flight += 1
        return process

    def _release(self, process: Process, alone: bool) -> None:
        self._in_flight -= 1
        if process in self._processes:
            process.free_slots += process.count_slots(alone)
            process.begun = 0.0 if process.is_idle else time.monotonic()
            self._hand_out(process)

    def _hand_out(self, process: Process) -> None:
        # Who wants one alone comes first, and until a process is idle the others wait with it.
        while self._waiting and process.can_take(self._waiting[0].alone):
            turn = self._waiting.popleft()
            turn.process.set(self._take(process, turn.alone))
            self._events.queued(self.waiting)

    def _keep_alive(self, child: Child) -> None:
        failures = 0
        while True:
            process = Process(child)
            try:
                process.wait_until_ready()
            except (EOFError, OSError, RuntimeError) as error:
                process.bury()
                failures += 1
                if not self.info:
                    self._refuse(_explain(error))
                    return
                logger.error("event=not_restarted index=%d reason=%s", child.index, _explain(error))
            else:
                failures = 0
                self._serve(process)
            if boot.draining and not self._in_flight:
                return
            gevent.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            self._events.restarted()
            child = self._start_child(child.index)

    def _serve(self, process: Process) -> None:
        """Until it ends."""
        self._processes.append(process)
        if not self.info and len(self._processes) == self.size:
            self.info = process.ready
            self._events.ready(self.info)
        self._hand_out(process)
        process.deliver_replies(self._events)
        self._retire(process)
        logger.error("event=process_ended pid=%d index=%d", process.pid, process.index)
        process.bury()

    def _retire(self, process: Process) -> None:
        """Give it nothing more."""
        if process in self._processes:
            self._processes.remove(process)


def _explain(error: Exception) -> str:
    if isinstance(error, RuntimeError):
        return str(error)
    return (
        "Kennel cannot start: a process was killed before its model was loaded; "
        "choose an instance with more memory or lower KENNEL_WORKERS."
    )
