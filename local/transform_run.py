"""The requests of a transform job: on each instance as many threads as it may have requests at a time.

A thread lives as long as the job and keeps one connection; it takes the next mini-batch, of whichever object,
so that one large object keeps all of them busy too.
"""

from __future__ import annotations

import http.client
import json
import logging
import queue
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.assembling import Assembly, Folder
from local.data_processing import ProcessingError, filter_input, process_answer
from local.invoking import Address, InvocationError, Invoker
from local.platform import LocalError
from local.splitting import Payload, SplitError, build_payloads, split_records
from local.transform_input import InputObject, open_object
from local.transform_progress import TransformProgress
from local.transform_request import Parameters, TransformRequest, resolve_parameters

logger = logging.getLogger(__name__)

PARAMETERS_SECONDS = 60
JOIN_SECONDS = 10.0
OBJECT_FAULTS = (OSError, EOFError, zlib.error, SplitError, ProcessingError)


@dataclass(slots=True)
class _Task:
    """One request to send; `payload` is None for a whole object, which its thread reads itself."""

    item: InputObject
    assembly: Assembly
    sequence: int
    payload: Payload | None


@dataclass(frozen=True, slots=True)
class _Event:
    """What a thread tells: an answer, an object's end (with the reason where it failed), or its own end."""

    records: int = 0
    units: int = 0
    key: str = ""
    reason: str = ""
    error: BaseException | None = None
    is_last: bool = False


def read_parameters(address: Address, request: TransformRequest) -> Parameters:
    """GET /execution-parameters, which a container need not have. Raises LocalError for nonsense."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PARAMETERS_SECONDS)
    with closing(connection):
        connection.request("GET", "/execution-parameters")
        response = connection.getresponse()
        body = response.read()
    answered: Any = {}
    if response.status == http.HTTPStatus.OK:
        answered = None
        with suppress(ValueError):
            answered = json.loads(body)
        if not isinstance(answered, dict):
            raise LocalError(f"/execution-parameters answered {body[:80]!r}, which is not a JSON object.")
    elif response.status != http.HTTPStatus.NOT_FOUND:
        logger.warning("/execution-parameters answered %d; the defaults are taken", response.status)
    return resolve_parameters(request, answered)


def transform(
    addresses: Sequence[Address],
    shares: Sequence[Sequence[InputObject]],
    request: TransformRequest,
    *,
    record_failure: Callable[[str, str], None],
) -> TransformProgress:
    """Transform each share by its instance; failed objects are told one by one, the others have their .out.

    Raises LocalError when a server is gone or the disk is full: what is finished by then stays.
    """
    folder, stop = Folder(request.destination), threading.Event()
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    threads: list[threading.Thread] = []
    for address, share in zip(addresses, shares, strict=True):
        instance = _Instance(address, share, request, folder, events, stop)
        threads += instance.start()
    by_object = request.split == "None"
    total = sum(1 if by_object else _size(item.path) for share in shares for item in share)
    try:
        with TransformProgress(total=total, unit="image" if by_object else "B") as progress:
            for event in _read_events(events, len(threads)):
                progress.add(records=event.records, units=event.units)
                if event.reason:
                    record_failure(event.key, event.reason)
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        folder.close()
    return progress


def _read_events(events: queue.SimpleQueue[_Event], num_threads: int) -> Iterator[_Event]:
    """Until every thread has ended. Raises what one of them could not go on after."""
    while num_threads:
        event = events.get()
        if event.error is not None:
            raise event.error
        num_threads -= event.is_last
        yield event


@dataclass(slots=True)
class _Instance:
    """A server and its share of the objects."""

    address: Address
    share: Sequence[InputObject]
    request: TransformRequest
    folder: Folder
    events: queue.SimpleQueue[_Event]
    stop: threading.Event
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> list[threading.Thread]:
        """The running threads."""
        parameters = read_parameters(self.address, self.request)
        logger.info("server=%s:%d %s", self.address.host, self.address.port, parameters)
        tasks = self._tasks(parameters)
        threads = [
            threading.Thread(target=self._work, args=(tasks, parameters), daemon=True)
            for _ in range(parameters.max_concurrent if self.share else 0)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, tasks: Iterator[_Task], parameters: Parameters) -> None:
        invoker = Invoker(self.address, self.request, self.stop)
        try:
            with closing(invoker):
                while not self.stop.is_set() and (task := self._next(tasks)) is not None:
                    self._transform(task, invoker, parameters)
            self.events.put(_Event(is_last=True))
        except BaseException as error:  # told to the thread that started this one, which raises it
            self.events.put(_Event(error=error))

    def _next(self, tasks: Iterator[_Task]) -> _Task | None:
        with self._lock:
            return next(tasks, None)

    def _transform(self, task: _Task, invoker: Invoker, parameters: Parameters) -> None:
        assembly = task.assembly
        if assembly.failure:
            return
        try:
            payload = task.payload or next(self._payloads(task.item, parameters))
            answer = invoker.invoke(payload.parts, is_streamed=parameters.max_payload_mb == 0)
            answer = process_answer(
                self.request.processing,
                payload.records,
                answer,
                content_type=self.request.content_type,
                accept=self.request.accept,
            )
        except (InvocationError, *OBJECT_FAULTS) as error:
            self._fail(assembly, task.item, error)
            return
        by_object = task.payload is None
        units = 1 if by_object else sum(len(record) for record in payload.records)
        is_finished = assembly.add(task.sequence, answer)
        self.events.put(
            _Event(
                records=len(payload.records),
                units=units,
                key=task.item.key,
                reason=assembly.failure if is_finished else "",
            )
        )

    def _tasks(self, parameters: Parameters) -> Iterator[_Task]:
        """All requests of the share, read from the objects as they are asked for."""
        for item in self.share:
            assembly = Assembly(item.key, self.folder, ends_lines=self.request.assemble == "Line")
            if self.request.split == "None":
                assembly.total_is(1)
                yield _Task(item, assembly, 0, None)
                continue
            count = 0
            try:
                for payload in self._payloads(item, parameters):
                    if assembly.failure:
                        break
                    yield _Task(item, assembly, count, payload)
                    count += 1
                assembly.expect(count)
            except OBJECT_FAULTS as error:
                self._fail(assembly, item, error)

    def _payloads(self, item: InputObject, parameters: Parameters) -> Iterator[Payload]:
        request = self.request
        with open_object(item, is_gzipped=request.is_gzipped) as file:
            yield from build_payloads(
                split_records(file, request.split),
                lambda record: filter_input(request.processing, record, request.content_type),
                is_single_record=parameters.is_single_record,
                max_payload_bytes=parameters.max_payload_bytes,
            )

    def _fail(self, assembly: Assembly, item: InputObject, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if assembly.fail(reason):
            units = 1 if self.request.split == "None" else _size(item.path)
            self.events.put(_Event(units=units, key=item.key, reason=reason))


def _size(path: Path) -> int:
    """0 for one that is not there, which fails when its turn comes."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
