"""Make or remake the debugger's page from stored series, also of a job that was killed.

    python -m training.debugging.report RUN               # RUN's debugging/report.html
    python -m training.debugging.report RUN RUN...        # comparison.html: the runs side by side

RUN is the OUT of `python -m local train`, a job's unpacked output.tar.gz, or the folder of series.jsonl.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training.debugging.report import REPORT_FILE, find_series, read_run
from training.debugging.report.page import write_page
from training.debugging.report.run import RunError
from training.debugging.rules import RuleError

COMPARISON_FILE = "comparison.html"


def main(arguments: list[str] | None = None) -> int:
    """Print the page's path; 1 with one line where there is no series."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(
        prog="python -m training.debugging.report", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("run", nargs="+", type=Path, help="a job's output, or the folder of its series.jsonl")
    parser.add_argument("--output", type=Path, help="the page; default: beside the (first) series")
    options = parser.parse_args(arguments)
    try:
        folders = [find_series(path) for path in options.run]
        runs = [
            read_run(folder, name=path.resolve().name)
            for folder, path in zip(folders, options.run, strict=True)
        ]
    except (RunError, RuleError) as error:
        print(error, file=sys.stderr)
        return 1
    destination = options.output or folders[0] / (REPORT_FILE if len(runs) == 1 else COMPARISON_FILE)
    write_page(runs, destination)
    print(destination)
    return 0


if __name__ == "__main__":
    sys.exit(main())
