"""An endpoint as SageMaker runs one: model.tar.gz unpacked, `serve` started, /ping polled, SIGTERM last.

`serve` is a plain process, or with an image the real container.
"""

from __future__ import annotations

import http.client
import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from artifact.bundle import Bundle, read_bundle, unpack_artifact
from local.container import Container, removed_at_the_end, require_image
from local.platform import (
    REPOSITORY,
    LocalError,
    container_environment,
    free_port,
    serving_python,
    stop_process,
)

logger = logging.getLogger(__name__)

STARTUP_SECONDS = 480.0  # SageMaker's ContainerStartupHealthCheckTimeoutInSeconds unless set
PING_SECONDS = 2.0  # SageMaker gives one /ping this long
STOP_GRACE_SECONDS = 30  # then SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server that answered /ping with 200."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    bundle: Bundle
    precision: str = ""  # that it serves, as /ping says; empty where the container does not

    @property
    def url(self) -> str:
        """Where to send requests."""
        return f"http://{self.host}:{self.port}"


@contextmanager
def start_endpoint(
    artifact: Path,
    *,
    port: int = 0,
    environment: Mapping[str, str] | None = None,
    image: str | None = None,
    options: Sequence[str] = (),
) -> Iterator[Endpoint]:
    """Serve a model.tar.gz or an unpacked bundle while the context lasts; port 0 picks a free one.

    With `image` in a container, `options` being more of `docker run`'s. Raises LocalError where the port is
    taken, or the server does not start, with its own last words on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="kennel-model-") as scratch:
        model_dir = open_artifact(artifact, Path(scratch))
        bundle = read_bundle(model_dir)
        port = free_port(port)
        variables = dict(environment or {})
        server = (
            _container(image, model_dir, port, variables, options)
            if image
            else _process(model_dir, port, variables)
        )
        with server.cleanup:
            # Not as a context, which at its end would wait for a server that nobody had told to stop.
            process = subprocess.Popen(server.command, env=server.environment, start_new_session=True)
            endpoint = Endpoint(host="127.0.0.1", port=port, process=process, bundle=bundle)
            try:
                yield replace(endpoint, precision=_wait_for_ping(endpoint))
            finally:
                stop_process(process, grace_seconds=STOP_GRACE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What to start, and what to clear away when it has ended."""

    command: list[str]
    environment: dict[str, str] | None = None  # None: this process's
    cleanup: AbstractContextManager[None] = field(default_factory=nullcontext)


def _process(model_dir: Path, port: int, variables: dict[str, str]) -> _Server:
    settings = {"KENNEL_MODEL_DIR": str(model_dir.resolve()), "SAGEMAKER_BIND_TO_PORT": str(port)}
    return _Server(
        command=[*_ending_with_us(), str(REPOSITORY / "container" / "serve")],
        environment=container_environment(serving_python(), **(settings | variables)),
    )


def _ending_with_us() -> list[str]:
    """A server in a session of its own would outlive a job that is killed (SIGKILL); Linux can tell it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _container(
    image: str, model_dir: Path, port: int, variables: dict[str, str], options: Sequence[str]
) -> _Server:
    require_image(image)
    container = Container(
        image=image,
        arguments=("serve",),
        environment=variables,
        mounts={"/opt/ml/model:ro": model_dir},
        publish=port,
        options=tuple(options),
    )
    return _Server(command=container.command(), cleanup=removed_at_the_end(container))


def open_artifact(artifact: Path, scratch: Path) -> Path:
    """The bundle's folder: `artifact` itself, or model.tar.gz unpacked into `scratch`."""
    if artifact.is_dir():
        return artifact
    if not artifact.is_file():
        raise LocalError(f"There is no artifact {artifact}; `make train` writes OUT/model.tar.gz.")
    unpack_artifact(artifact, scratch)
    return scratch


def _wait_for_ping(endpoint: Endpoint) -> str:
    """The precision the server names. Raises LocalError where it does not start."""
    deadline = time.monotonic() + STARTUP_SECONDS
    started = time.monotonic()
    while time.monotonic() < deadline:
        exit_code = endpoint.process.poll()
        if exit_code is not None:
            raise LocalError(
                f"The server ended with exit code {exit_code} before it answered /ping (see above)."
            )
        precision = _ping(endpoint)
        if precision is not None:
            logger.info("endpoint=%s ready_seconds=%.1f", endpoint.url, time.monotonic() - started)
            return precision
        time.sleep(0.1)
    raise LocalError(f"The server did not answer /ping with 200 within {STARTUP_SECONDS:.0f} s.")


def _ping(endpoint: Endpoint) -> str | None:
    """X-Kennel-Precision of a 200; None for any other answer, and for none."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=PING_SECONDS)
    try:
        connection.request("GET", "/ping")
        response = connection.getresponse()
        return response.getheader("X-Kennel-Precision", "") if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
