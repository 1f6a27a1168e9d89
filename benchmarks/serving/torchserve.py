"""TorchServe's files: the model archive and config.properties."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.serving.environments import environment_python
from benchmarks.serving.places import HERE
from local.platform import free_port

MOST_BYTES = 30_000_000  # the 12-megapixel picture is larger than TorchServe's default of 6.5 MB allows for


def write_torchserve_files(
    model_dir: Path, port: int, folder: Path, *, workers: int, environment: Mapping[str, str]
) -> Path:
    """config.properties in `folder`, network.mar beside it."""
    if shutil.which("java") is None:
        raise FileNotFoundError(
            "There is no `java` here; `apt-get install openjdk-17-jre-headless` brings it."
        )
    script = HERE / "peers" / "torchserve_archive.py"
    command = [str(environment_python("torchserve")), str(script), str(model_dir.resolve()), str(folder)]
    subprocess.run(command, env=dict(environment), check=True, capture_output=True)
    config = folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{port}\n"
        f"management_address=http://127.0.0.1:{free_port()}\n"
        f"metrics_address=http://127.0.0.1:{free_port()}\n"
        f"default_workers_per_model={workers}\n"
        f"max_request_size={MOST_BYTES}\n"
        f"max_response_size={MOST_BYTES}\n"
        "disable_system_metrics=true\n"
    )
    return config
