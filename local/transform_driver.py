"""A Batch Transform job from start to end, on any servers that keep SageMaker's contract.

What is finished stays, whatever happens; the same job started again goes on from there.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from local.invoking import Address
from local.platform import LocalError
from local.transform_input import list_input, share_of_instance
from local.transform_request import TransformRequest, build_environment
from local.transform_run import transform
from local.transform_state import JobState, open_state

logger = logging.getLogger(__name__)

PING_SECONDS = 2

Start = Callable[[Mapping[str, str]], AbstractContextManager[Address]]  # environment -> a server that answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformed:
    """What became of the objects."""

    num_objects: int
    num_finished: int
    failed: dict[str, str]  # key -> reason
    precision: str = ""  # that the server named on /ping
    records_per_second: float = 0.0

    @property
    def status(self) -> str:
        """As DescribeTransformJob names it: one failed object fails the job, the rest is kept."""
        return "Failed" if self.failed else "Completed"


def transform_with(
    request: TransformRequest,
    start: Start,
    *,
    model: Any = None,
    retry_failed: bool = False,
    fresh: bool = False,
) -> Transformed:
    """Transform on as many servers as the request has instances; `model` is what the answers also depend on.

    A job that was cut short here continues. Raises LocalError where it cannot start, or cannot go on.
    """
    objects = list_input(request)
    identity = request.identity() | {"model": model}
    with open_state(request.destination, identity, objects, retry_failed=retry_failed, fresh=fresh) as state:
        logger.info(
            "objects=%d finished_before=%d failed_before=%d", len(objects), state.kept, len(state.failed)
        )
        speed = _run(request, start, state)
        state.write_failures()
        finished = len(objects) - len(state.failed)
        result = Transformed(
            num_objects=len(objects),
            num_finished=finished,
            failed=dict(sorted(state.failed.items())),
            precision=state.precision,
            records_per_second=speed,
        )
        state.write(result.status)
    return result


def _run(request: TransformRequest, start: Start, state: JobState) -> float:
    """Records per second, the servers' start not counted."""
    if not state.pending:
        return 0.0
    environment, number = build_environment(request), request.num_instances
    shares = [share_of_instance(state.pending, instance, number) for instance in range(number)]
    with ExitStack() as stack:
        addresses = [stack.enter_context(start(environment)) for _ in range(number)]
        state.choose_precision(addresses[0].precision)
        started = time.monotonic()
        try:
            progress = transform(addresses, shares, request, record_failure=state.record_failure)
        except LocalError as error:
            raise LocalError(
                f"{error} What is finished stays in {request.destination}; start the same job again to go on."
            ) from error
    logger.info(
        "objects=%d failed=%d images=%d seconds=%.1f images_per_second=%.1f",
        len(state.pending),
        len(state.failed),
        progress.records,
        time.monotonic() - started,
        progress.records_per_second,
    )
    return progress.records_per_second


@contextmanager
def running_server(url: str) -> Iterator[Address]:
    """One that somebody else started, such as a container of another maker's image. Raises LocalError."""
    parts = urlsplit(url)
    address = Address(parts.hostname or "127.0.0.1", parts.port or 8080)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PING_SECONDS)
    try:
        connection.request("GET", "/ping")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise LocalError(f"{url}/ping cannot be reached ({error}); start the server first.") from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise LocalError(f"{url}/ping answered {status}, so no job would be sent there.")
    yield address
