"""Which sources a results file measured, by hash: what is told of code that changed since is no fact.

    python -m benchmarks.sources benchmarks/results/FILE.md...      # right after measuring: stamps it

The last line of a results file names paths and their hash. tests/contract/test_results.py fails once a path
has changed: measure again, or take the fact out of README. Comments, docstrings and layout of Python do not
count, since they measure nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STAMP = re.compile(r"^Measured sources: `(?P<paths>[^`]+)`, sha256 `(?P<digest>\w*)`\.$", re.MULTILINE)


class SourcesError(ValueError):
    """A results file without a line of its sources, or a path that is not there."""


def main() -> None:
    """Stamp the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        try:
            stamp(path)
        except SourcesError as error:
            sys.exit(str(error))


def stamp(results: Path) -> None:
    """Write the hash of today's sources into its line. Raises SourcesError."""
    text = results.read_text(encoding="utf-8")
    paths, digest = read_stamp(results)
    line = stamp_line(*paths)
    results.write_text(STAMP.sub(lambda _: line, text), encoding="utf-8")
    print(f"{results}: {line} (was {digest or 'empty'})")


def stamp_line(*paths: str) -> str:
    """For the end of a results file that is written right after measuring. Raises SourcesError."""
    return f"Measured sources: `{' '.join(paths)}`, sha256 `{hash_sources(paths)}`."


def read_stamp(results: Path) -> tuple[list[str], str]:
    """The paths, and the hash they had when they were measured. Raises SourcesError."""
    found = STAMP.search(results.read_text(encoding="utf-8"))
    if not found:
        raise SourcesError(f"{results} does not end with: Measured sources: `PATH...`, sha256 ``.")
    return found["paths"].split(), found["digest"]


def hash_sources(paths: Sequence[str]) -> str:
    """16 hexadecimal digits over the tracked files under `paths`. Raises SourcesError without any."""
    digest = hashlib.sha256()
    for path in paths:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--", path], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        files = sorted(filter(None, listed.stdout.split("\0")))
        if not files:
            raise SourcesError(f"No file of the repository is under {path}.")
        for file in files:
            digest.update(f"{file}\0".encode() + _content(REPOSITORY / file) + b"\0")
    return digest.hexdigest()[:16]


def _content(file: Path) -> bytes:
    """What counts of it."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body.pop(0)
    return ast.dump(tree).encode()


if __name__ == "__main__":
    main()
