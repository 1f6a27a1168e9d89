"""How each server is started and asked: a worker per core with one torch thread, as the peers' docs have it.

With torch's default, a thread per core in every worker, the workers would compete for the cores.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifact.cores import available_cores
from benchmarks.serving.environments import environment_python, peer_environment
from benchmarks.serving.load import LoadError, exchange
from benchmarks.serving.places import HERE, WORK
from benchmarks.serving.processes import Processes, start_processes
from benchmarks.serving.requests import BuildRequest, Request, base64_request, raw_request, v2_request
from benchmarks.serving.torchserve import write_torchserve_files
from local.platform import REPOSITORY, container_environment, free_port, serving_python

PEERS_FOLDER = HERE / "peers"
START_SECONDS = 180.0
WORKERS = str(available_cores())


class ServerError(RuntimeError):
    """A server that cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to compare."""

    name: str
    health: str
    path: str
    build_request: BuildRequest
    launch: Callable[[Path, int, Path], Launch]  # model_dir, port, an empty folder to write into
    settings: str  # for the report


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answered its health route and one prediction."""

    server: Server
    port: int
    processes: Processes
    start_seconds: float  # from process start to the first 200 on the health route


@contextmanager
def run_server(server: Server, model_dir: Path, picture: bytes) -> Iterator[Running]:
    """Started, and asked once; raises ServerError with its last words where that fails."""
    port = free_port()
    # A short path: Ray's sockets lie there, and a socket's path may have 107 bytes.
    with ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        launch = server.launch(model_dir, port, Path(stack.enter_context(scratch)))
        log = WORK / "logs" / f"{server.name}.log"
        processes = stack.enter_context(start_processes(launch.command, launch.environment, log))
        health = Request(path=server.health, method="GET")
        start_seconds = _wait_for_200(processes, port, health, pause_seconds=0.01)
        # A health route may answer before the workers do.
        _wait_for_200(processes, port, server.build_request(server.path, picture), pause_seconds=0.5)
        yield Running(server=server, port=port, processes=processes, start_seconds=start_seconds)


def _wait_for_200(processes: Processes, port: int, request: Request, *, pause_seconds: float) -> float:
    """Seconds since the process started. Raises ServerError."""
    status: int | str = "nothing"
    while time.monotonic() < processes.started + START_SECONDS:
        if processes.root.poll() is not None:
            raise ServerError(
                f"it ended with exit code {processes.root.returncode}: {processes.last_words()}"
            )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            status = exchange(connection, request)
        except LoadError:
            status = "nothing"
        finally:
            connection.close()
        if status == http.HTTPStatus.OK:
            return time.monotonic() - processes.started
        time.sleep(pause_seconds)
    raise ServerError(
        f"{request.path} was answered with {status} after {START_SECONDS:.0f} s: {processes.last_words()}"
    )


def _kennel(model_dir: Path, port: int, folder: Path) -> Launch:
    variables = {"KENNEL_MODEL_DIR": str(model_dir.resolve()), "SAGEMAKER_BIND_TO_PORT": str(port)}
    return Launch(
        command=[str(REPOSITORY / "container" / "serve")],
        environment=container_environment(serving_python(), **variables),
    )


def _peer(name: str, model_dir: Path, port: int, **variables: str) -> dict[str, str]:
    settings = {"MODEL_DIR": str(model_dir.resolve()), "PORT": str(port), "WORKERS": WORKERS}
    return peer_environment(name) | {
        "PYTHONPATH": str(PEERS_FOLDER),
        "TORCH_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **settings,
        **variables,
    }


def _flask(model_dir: Path, port: int, folder: Path) -> Launch:
    command = [str(environment_python("flask")), "-m", "gunicorn", "--workers", WORKERS]
    command += ["--bind", f"127.0.0.1:{port}", "--timeout", "60", "flask_server:app"]
    return Launch(command=command, environment=_peer("flask", model_dir, port))


def _litserve(model_dir: Path, port: int, folder: Path) -> Launch:
    script = PEERS_FOLDER / "litserve_server.py"
    return Launch(
        command=[str(environment_python("litserve")), str(script)],
        environment=_peer("litserve", model_dir, port),
    )


def _bentoml(model_dir: Path, port: int, folder: Path) -> Launch:
    command = [str(environment_python("bentoml")), "-m", "bentoml", "serve", "bentoml_service:ImageService"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(PEERS_FOLDER)]
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder)}
    return Launch(command=command, environment=_peer("bentoml", model_dir, port, **quiet))


def _ray(model_dir: Path, port: int, folder: Path) -> Launch:
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FOLDER": str(folder),
        "RAY_DEDUP_LOGS": "0",
    }
    return Launch(
        command=[str(environment_python("ray")), str(PEERS_FOLDER / "ray_server.py")],
        environment=_peer("ray", model_dir, port, **variables),
    )


def _mlserver(model_dir: Path, port: int, folder: Path) -> Launch:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": int(WORKERS),
        "debug": False,
        "metrics_dir": str(folder),  # else it writes into the working directory
    }
    model = {"name": "network", "implementation": "mlserver_model.ImageModel"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return Launch(
        command=[str(environment_python("mlserver").parent / "mlserver"), "start", str(folder)],
        environment=_peer("mlserver", model_dir, port),
    )


def _torchserve(model_dir: Path, port: int, folder: Path) -> Launch:
    environment = _peer("torchserve", model_dir, port, LOG_LOCATION=str(folder), METRICS_LOCATION=str(folder))
    config = write_torchserve_files(model_dir, port, folder, workers=int(WORKERS), environment=environment)
    command = [
        str(environment_python("torchserve").parent / "torchserve"),
        "--start",
        "--foreground",
        "--ncs",
    ]
    command += ["--disable-token-auth", "--ts-config", str(config), "--model-store", str(folder)]
    command += ["--models", "network=network.mar"]
    return Launch(command=command, environment=environment)


KENNEL = "kennel"
SERVERS: Mapping[str, Server] = {
    server.name: server
    for server in (
        Server(
            name=KENNEL,
            health="/ping",
            path="/invocations",
            build_request=raw_request,
            launch=_kennel,
            settings="container/serve with its defaults, int8",
        ),
        Server(
            name="flask",
            health="/ping",
            path="/invocations",
            build_request=raw_request,
            launch=_flask,
            settings="gunicorn sync workers, one per core",
        ),
        Server(
            name="litserve",
            health="/health",
            path="/predict",
            build_request=base64_request,
            launch=_litserve,
            settings="workers_per_device = cores; base64 in JSON",
        ),
        Server(
            name="bentoml",
            health="/readyz",
            path="/classify",
            build_request=raw_request,
            launch=_bentoml,
            settings="workers = cores; the body is the picture",
        ),
        Server(
            name="torchserve",
            health="/ping",
            path="/predictions/network",
            build_request=raw_request,
            launch=_torchserve,
            settings="default_workers_per_model = cores, image_classifier handler, no batching",
        ),
        Server(
            name="ray",
            health="/-/healthz",
            path="/classify",
            build_request=raw_request,
            launch=_ray,
            settings="num_replicas = cores, 1 CPU each",
        ),
        Server(
            name="mlserver",
            health="/v2/health/ready",
            path="/v2/models/network/infer",
            build_request=v2_request,
            launch=_mlserver,
            settings="parallel_workers = cores; base64 in the V2 protocol",
        ),
    )
}
