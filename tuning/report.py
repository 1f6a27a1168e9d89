"""The page."""

from pathlib import Path

from tuning.results import Results


def write_report(results: Results, destination: Path) -> None:
    destination.write_text("")
