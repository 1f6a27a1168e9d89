"""The locks: complete, hashed, without addresses; and no torch where the server runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from local.platform import REPOSITORY, SERVING_ENVIRONMENT

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
HEAVY = {"torch", "torchvision", "triton", "scipy", "scikit-learn", "matplotlib", "safetensors"}
# What a lock has on purpose in another version than development, or alone: prefixes of package names.
ONLY_THERE = {
    "serving-gpu": ("torch", "triton", "cuda-", "nvidia-", "networkx"),  # the CUDA 12 line
    "chart": ("aws-cdk-lambda-layer-kubectl",),
}
# A client that no code of ours imports, in an environment of its own: its versions are its users'.
APART = {"sdk"}


def _pinned(lock: Path) -> dict[str, set[str]]:
    """Package -> the versions pinned for it (one per Python version or platform)."""
    found: dict[str, set[str]] = {}
    for name, pin in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name.lower(), set()).add(pin)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.split(r"\n(?=\S)", text)
    pins = [block for block in blocks if re.match(r"[A-Za-z0-9._-]+==", block)]

    assert pins
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert not re.search(r"https?://|--index-url|--find-links|file:", text)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_nothing_phones_home(lock: Path) -> None:
    assert "openvino-telemetry" not in _pinned(lock)


def test_environments_agree_on_the_packages_they_share() -> None:
    development = _pinned(REPOSITORY / "requirements/dev.txt")

    for lock in (lock for lock in LOCKS if lock.stem not in APART):
        elsewhere = ONLY_THERE.get(lock.stem, ())
        differing = {name for name, pins in _pinned(lock).items() if development.get(name) != pins}
        assert {name for name in differing if not name.startswith(elsewhere)} == set(), lock.name


@pytest.mark.parametrize("name", sorted(APART))
def test_lock_apart_shares_no_requirement_with_the_others(name: str) -> None:
    others = [path for path in (REPOSITORY / "requirements").glob("*.in") if path.stem != name]

    assert "-r " not in (REPOSITORY / f"requirements/{name}.in").read_text()
    assert [path.name for path in others if f"-r {name}.in" in path.read_text()] == []


def test_serving_lock_has_no_torch() -> None:
    pinned = set(_pinned(REPOSITORY / "requirements/serving-cpu.txt"))

    assert {"flask", "gunicorn", "openvino", "pillow", "numpy"} <= pinned
    assert pinned & HEAVY == set()
    assert not any(name.startswith("nvidia-") for name in pinned)


def test_serving_environment_as_installed_has_no_torch() -> None:
    python = SERVING_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip("the serving environment is not made: run `make setup`")
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    ).stdout
    installed = {line.split("==")[0].lower() for line in listed.splitlines() if line}

    assert "openvino" in installed
    assert installed & HEAVY == set()
