"""Where the training benchmarks find images and keep what they make."""

from __future__ import annotations

import os
from pathlib import Path

from local.platform import REPOSITORY

SHARED = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data"
WORK = REPOSITORY / "build" / "bench" / "training"  # environments, links to images, weights, logs
HERE = Path(__file__).parent
