"""A whole life cycle on a real account: `python -m pytest tests/live --aws`; about a dollar and an hour.

Needs credentials, and pushed images (`make build push`). The last step removes what it made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform import REPOSITORY

RECIPE = "recipes/shapes.toml"


def run_aws(verb: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aws", verb, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=check,
        timeout=3600,
    )


@pytest.fixture
def clean_account() -> Iterator[None]:
    """Nothing of the recipe is left behind, nor taken over from somebody else's run."""
    before = run_aws("status", RECIPE).stdout
    assert "endpoint" not in before.lower(), f"{RECIPE} is in use on this account: {before}"
    yield
    run_aws("destroy", RECIPE, "--results", "--data")


@pytest.mark.live
def test_whole_life_cycle_on_a_real_account(shapes: Path, clean_account: None) -> None:
    for verb in ("doctor", "bootstrap"):
        run_aws(verb, RECIPE)
    run_aws("upload", RECIPE, "--data", str(shapes))
    run_aws("train", RECIPE)
    run_aws("deploy", RECIPE)

    answer = run_aws("invoke", RECIPE, "examples/images/star.jpg").stdout
    assert "star" in answer
    assert RECIPE.rpartition("/")[2].removesuffix(".toml") in run_aws("costs").stdout

    again = run_aws("deploy", RECIPE)
    assert "created" not in again.stdout + again.stderr
    plan = json.loads(run_aws("deploy", RECIPE, "--dry-run").stdout)
    assert plan["shapes"]
