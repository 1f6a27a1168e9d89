"""The page that tells what happened in a training: `write_debug_report`."""

from __future__ import annotations

import logging
from pathlib import Path

from training.debugging.report.page import write_page
from training.debugging.report.run import find_series, note_failure, read_run

__all__ = ["REPORT_FILE", "find_series", "note_failure", "read_run", "write_debug_report"]

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"


def write_debug_report(directory: Path, *, name: str) -> Path:
    """report.html beside the series in `directory`."""
    destination = directory / REPORT_FILE
    write_page([read_run(directory, name=name)], destination)
    logger.info("debug_report=%s", destination)
    return destination
