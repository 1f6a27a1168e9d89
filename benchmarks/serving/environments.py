"""Each peer's own virtual environment, made once from requirements/<peer>.txt and kept under build/bench."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.places import HERE, WORK

logger = logging.getLogger(__name__)

INSTALL_SECONDS = 1800


class PeerInstallError(RuntimeError):
    """A peer that cannot be installed; the message says why."""


def environment_python(name: str) -> Path:
    """The peer's interpreter."""
    return WORK / "envs" / name / "bin" / "python"


def peer_environment(name: str) -> dict[str, str]:
    """This process's variables, its virtual environment left out and the peer's programs first on PATH."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {
        "PATH": f"{environment_python(name).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    }


def prepare_environment(name: str, *, requirements: Path = HERE / "requirements", work: Path = WORK) -> None:
    """Install where the pinned versions are not there yet. Raises PeerInstallError."""
    requirements = requirements / f"{name}.txt"
    folder = work / "envs" / name
    stamp = folder / "installed.txt"
    if stamp.is_file() and stamp.read_text() == requirements.read_text():
        return
    logger.info("installing %s into %s", name, folder)
    for command in install_commands(folder, requirements):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise PeerInstallError(f"its installation took over {INSTALL_SECONDS} s") from None
        if done.returncode != 0:
            raise PeerInstallError(f"its installation failed: {' '.join(done.stderr.split())[-300:]}")
    stamp.write_text(requirements.read_text())


def install_commands(folder: Path, requirements: Path) -> list[list[str]]:
    """With uv, which links packages that several peers share instead of copying them; else with pip."""
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        return [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, "--requirement", str(requirements)],
        ]
    return [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
    ]
