"""The page that tells what happened in a training: `write_debug_report`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.debugging.report.run import find_series, note_failure, read_run
from training.debugging.series import SERIES_FILE

__all__ = ["REPORT_FILE", "find_series", "read_run", "reporting", "write_debug_report"]

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"


@contextmanager
def reporting(directory: Path, *, name: str) -> Iterator[None]:
    """Around a training: however it ends, what was recorded in `directory` is told beside it."""
    try:
        yield
    except Exception as error:
        note_failure(directory, error)
        raise
    finally:
        if (directory / SERIES_FILE).is_file():
            _write_or_say_why_not(directory, name)


def write_debug_report(directory: Path, *, name: str) -> Path:
    """report.html beside the series in `directory`."""
    from training.debugging.report.page import write_page  # and with it matplotlib

    destination = directory / REPORT_FILE
    write_page([read_run(directory, name=name)], destination)
    logger.info("debug_report=%s", destination)
    return destination


def _write_or_say_why_not(directory: Path, name: str) -> None:
    """A page that cannot be written must not cost the training that it is about."""
    try:
        write_debug_report(directory, name=name)
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError):
        logger.exception(
            "the debugger's report could not be made; python -m training.debugging.report can later"
        )
