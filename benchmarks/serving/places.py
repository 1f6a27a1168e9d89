"""Where the benchmark finds the real images and keeps what it makes."""

from __future__ import annotations

import os
from pathlib import Path

from local.platform import REPOSITORY

SHARED = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared"))
WORK = REPOSITORY / "build" / "bench"  # environments, artifacts, pictures, logs: kept between runs
RESULTS = REPOSITORY / "benchmarks" / "results"
HERE = Path(__file__).parent
