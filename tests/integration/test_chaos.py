"""The chaos driver against a real server: the command, its lines, and a fault it must see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.lab import Lab
from chaos.load import closed_loop
from chaos.scenarios.soak import soak
from chaos.server import kill_one
from local.platform import REPOSITORY
from tests.bundles import encode_picture, make_tiny_bundle


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("chaos") / "model")


@pytest.fixture
def lab(tiny_bundle: Path, tmp_path: Path) -> Lab:
    return Lab(
        model_dir=tiny_bundle, bodies=[encode_picture("JPEG")], scratch=tmp_path, short=True, connections=4
    )


def test_command_prints_a_line_per_scenario_and_json_last(tiny_bundle: Path, tmp_path: Path) -> None:
    command = ["chaos", "--artifact", str(tiny_bundle), "--output", str(tmp_path), "--short"]

    done = subprocess.run(
        [sys.executable, "-m", *command, "--only", "corrupted,soak"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )

    corrupted, skipped, last = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert corrupted == "PASS corrupted: exit_code=1 lines=1"
    assert skipped.startswith("SKIP soak: ")
    report = json.loads(last)
    assert report["passed"] is True
    assert [one["name"] for one in report["scenarios"]] == ["corrupted", "soak"]


def test_unknown_scenario_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--only", "kill,earthquake"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "earthquake: not one of corrupted, terminate" in done.stderr


def test_killed_server_leaves_harmed_requests_in_the_book(lab: Lab) -> None:
    async def murder() -> tuple[int, int]:
        async with lab.server(KENNEL_WORKERS="1") as server:
            async with closed_loop(lab.target(server), connections=4) as ledger:
                await asyncio.sleep(0.5)
                workers = server.workers()
                os.kill(server.process.pid, signal.SIGKILL)  # nobody shall start others in their place
                for worker in workers:
                    kill_one([worker], signal.SIGKILL)
                await asyncio.sleep(0.5)
        return ledger.counts().get("answered", 0), len(ledger.harmed())

    answered, harmed = asyncio.run(murder())

    assert answered > 0
    assert harmed > 0


def test_soak_keeps_samples_and_a_plot(tiny_bundle: Path, tmp_path: Path) -> None:
    lab = Lab(
        model_dir=tiny_bundle,
        bodies=[encode_picture("JPEG")],
        scratch=tmp_path,
        short=True,
        connections=2,
        soak_minutes=0.05,
    )

    result = asyncio.run(soak(lab))

    header, *rows = (tmp_path / "soak.csv").read_text().splitlines()
    assert header == "seconds,pss_bytes,descriptors"
    assert len(rows) >= 8
    assert all(int(row.split(",")[1]) > 10_000_000 for row in rows)
    assert "<svg" in (tmp_path / "soak.svg").read_text()
    assert result.numbers["requests"] > 0
