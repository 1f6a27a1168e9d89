"""Both images as SageMaker, and stricter hosts, run them; served answers against the trainer's: `make smoke`.

Trains one epoch in the training image, serves the result under every set of restrictions, and stops a server
under load. Needs a Docker engine and the images of `make build`.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from artifact.bundle import Bundle, read_bundle, read_test_predictions
from local.container import Container, docker, removed_at_the_end, require_image
from local.endpoint import start_endpoint
from local.platform import LocalError
from local.training_job import run_training_job
from local.transform_job import run_transform_job
from training.recipe import Recipe

logger = logging.getLogger(__name__)

# What a job writes must be ours to remove, so only root lends another user's number.
ANY_USER = "10001" if os.getuid() == 0 else str(os.getuid())
LOCKED_UP = (
    *("--read-only", "--network", "none", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--user", ANY_USER),
)
SERVING_VARIANTS = {
    "as root": ("--user", "0"),
    "as a user nobody knows": ("--user", "54321:54321"),
    "1 GiB of memory, 1 CPU": ("--memory", "1g", "--cpus", "1"),
    "read-only, no network, no capabilities": LOCKED_UP,
}
STOP_SECONDS = 30  # between SIGTERM and SIGKILL: SageMaker's, compose.yaml's and the chart's
CLIENTS = 8
LOAD_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing tried, and how it went."""

    what: str
    result: str
    seconds: float


def run_smoke(
    recipe: Recipe, *, data: Path, output: Path, training_image: str, serving_image: str
) -> list[Step]:
    """Every step in order. Raises LocalError at the first that does not hold."""
    for image in (training_image, serving_image):
        require_image(image)
    shutil.rmtree(output, ignore_errors=True)
    train = partial(_train, recipe.with_overrides(["epochs=1"]), data, training_image)
    model, images = output / "train" / "model", data / "test"
    trials: dict[str, Callable[[], str]] = {
        "train, as SageMaker does": partial(train, output / "train", ()),
        "train: read-only, no network, no capabilities": partial(
            train, output / "locked-up", (*LOCKED_UP, "--tmpfs", "/tmp")
        ),
        "serve, and score the test set": partial(_transform, model, images, output, serving_image),
    }
    for name, options in SERVING_VARIANTS.items():
        trials[f"serve: {name}"] = partial(_serve, model, images, serving_image, options)
    trials["docker stop under load"] = partial(_stop_under_load, model, images, serving_image)

    steps = []
    for what, trial in trials.items():
        started = time.monotonic()
        result = trial()
        steps.append(Step(what=what, result=result, seconds=time.monotonic() - started))
        logger.info("smoke: %s: %s", what, result)
    return steps


def format_table(steps: list[Step]) -> str:
    """For people."""
    width = max(len(step.what) for step in steps)
    return "\n".join(f"{step.what:<{width}}  {step.seconds:6.1f} s  {step.result}" for step in steps)


def compare(answers: Mapping[str, Any], bundle: Bundle) -> str:
    """Each answer against what the trainer recorded. Raises LocalError naming the first that differs."""
    labels, precisions = bundle.manifest.labels, bundle.manifest.precisions
    recorded: dict[str, list[tuple[str, float, float]]] = {}
    for row in read_test_predictions(bundle.directory):
        tolerance = precisions[row.precision].tolerance
        recorded.setdefault(row.path, []).append((row.predicted, row.log_probability, tolerance))
    if not recorded:
        raise LocalError("The trainer recorded no test predictions: the data needs a test folder.")
    for path, rows in recorded.items():
        (answer,) = answers[path]
        best = max(range(len(labels)), key=answer.__getitem__)
        if not any(labels[best] == label and abs(answer[best] - at) <= within for label, at, within in rows):
            raise LocalError(
                f"{path}: served {labels[best]} at {answer[best]}, but the trainer recorded {rows}."
            )
    return f"{len(recorded)} of {len(recorded)} as the trainer recorded"


def _train(recipe: Recipe, data: Path, image: str, output: Path, options: tuple[str, ...]) -> str:
    archive = run_training_job(recipe, data=data, output=output, image=image, options=options)
    return f"model.tar.gz of {archive.stat().st_size / 1e6:.1f} MB"


def _transform(model: Path, images: Path, output: Path, image: str) -> str:
    result = run_transform_job(model, input_dir=images, output_dir=output / "transform", image=image)
    comparison = result.scores["comparison"]
    same, compared = comparison["items_same_prediction"], comparison["items_compared"]
    if result.failed or same != compared or not compared:
        raise LocalError(f"Served and recorded answers differ: {comparison}; failed: {result.failed}.")
    return f"{same} of {compared} as the trainer recorded; {result.report}"


def _serve(model: Path, images: Path, image: str, options: tuple[str, ...]) -> str:
    """Asked from inside, for there may be no network."""
    with _background(model, images, image, options) as container:
        script = Path(__file__).with_name("ask.py").read_text(encoding="utf-8")
        answers = docker("exec", "--interactive", container.name, "python", "-", "/images", stdin=script)
        return f"{compare(json.loads(answers), read_bundle(model))}; {_stop(container)}"


def _stop_under_load(model: Path, images: Path, image: str) -> str:
    """What was asked before `docker stop` is answered; what comes later is answered or not let in."""
    bodies = [path.read_bytes() for path in sorted(images.rglob("*.*")) if path.is_file()]
    options = ("--name", f"kennel-smoke-{os.getpid()}")
    container = Container(image=image, arguments=(), name=options[1])
    with start_endpoint(model, image=image, options=options) as endpoint, ThreadPoolExecutor(CLIENTS) as pool:
        over = threading.Event()
        clients = [
            pool.submit(_ask_until, over, endpoint.port, bodies[number::CLIENTS]) for number in range(CLIENTS)
        ]
        time.sleep(LOAD_SECONDS)
        stop_asked = time.monotonic()
        try:
            stopped = _stop(container)
        finally:
            over.set()
        exit_code = endpoint.process.wait()
    asked = [request for client in clients for request in client.result()]
    answered = [begun for begun, status in asked if status == http.HTTPStatus.OK]
    lost = [(begun, status) for begun, status in asked if status != http.HTTPStatus.OK and begun < stop_asked]
    refused = {status for _, status in asked} - {http.HTTPStatus.OK, None}
    if lost or refused or exit_code != 0 or not answered:
        raise LocalError(f"docker stop: {len(lost)} lost, statuses {refused}, exit code {exit_code}.")
    return f"{len(answered)} requests answered, none lost; {stopped}"


def _ask_until(over: threading.Event, port: int, bodies: list[bytes]) -> list[tuple[float, int | None]]:
    """(when it began, status; None where no answer came) of one request after another, a connection each."""
    asked: list[tuple[float, int | None]] = []
    while not over.is_set():
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STOP_SECONDS)
        try:
            body = bodies[len(asked) % len(bodies)]
            connection.request("POST", "/invocations", body, {"Content-Type": "application/x-image"})
            asked.append((begun, connection.getresponse().status))
        except (OSError, http.client.HTTPException):
            asked.append((begun, None))
            time.sleep(0.05)
        finally:
            connection.close()
    return asked


@contextmanager
def _background(model: Path, images: Path, image: str, options: tuple[str, ...]) -> Iterator[Container]:
    """A server in the background, whose log is part of the error where something in here fails."""
    container = Container(
        image=image,
        arguments=("serve",),
        mounts={"/opt/ml/model:ro": model, "/images:ro": images},
        options=("--detach", *options),
        remove=False,  # its exit code and log are wanted after its end
    )
    with removed_at_the_end(container):
        docker(*container.command()[1:])
        try:
            yield container
        except LocalError as error:
            log = subprocess.run(
                ["docker", "logs", container.name], capture_output=True, text=True, check=False
            )
            raise LocalError(f"{error}\n{log.stderr[-2000:]}") from error


def _stop(container: Container) -> str:
    started = time.monotonic()
    docker("stop", "--time", str(STOP_SECONDS), container.name)
    seconds = time.monotonic() - started
    if not container.remove:
        exit_code = docker("inspect", "--format", "{{.State.ExitCode}}", container.name).strip()
        if exit_code != "0":
            raise LocalError(f"docker stop: exit code {exit_code} after {seconds:.1f} s.")
    return f"stopped in {seconds:.1f} s"
