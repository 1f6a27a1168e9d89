"""Builds the notebooks of this folder from their sources, and runs them from top to bottom.

    python -m examples.notebooks train_and_deploy          # executed into build/notebooks
    python -m examples.notebooks train_and_deploy --save   # and kept, with its outputs, in examples/

A source is Python in jupytext's percent format, which a review can read; THE_NAME.py becomes the-name.ipynb.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("train_and_deploy", "sagemaker_sdk")
OUTPUT = Path("build/notebooks")
CELL_TIMEOUT_SECONDS = 900
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1, and the failing cell with its error, where a notebook does not run to its end."""
    options = _parser().parse_args(arguments)
    for name in options.names:
        notebook = build_notebook(name)
        try:
            NotebookClient(
                notebook,
                timeout=options.cell_timeout,
                coalesce_streams=True,  # a line is not cut where a pipe was read
                resources={"metadata": {"path": str(ROOT)}},
            ).execute()
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        clean_outputs(notebook)
        for folder in (ROOT / OUTPUT, *([ROOT / "examples"] if options.save else [])):
            print(write_notebook(notebook, folder / notebook_name(name)).relative_to(ROOT))
    return 0


def notebook_name(source: str) -> str:
    """train_and_deploy -> train-and-deploy.ipynb"""
    return f"{source.replace('_', '-')}.ipynb"


def build_notebook(source: str) -> NotebookNode:
    """Without outputs. Cells are numbered, so that the same source gives the same file."""
    notebook: NotebookNode = jupytext.read(ROOT / "examples" / f"{source}.py", fmt="py:percent")
    notebook.metadata = NotebookNode(  # type: ignore[no-untyped-call]
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number}"
    return notebook


def clean_outputs(notebook: NotebookNode) -> None:
    """Take out what is this machine's and not the reader's: folders, terminal colours, times of running."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = _without_places(output["text"])
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output["data"][kind] = _without_places(content)


def write_notebook(notebook: NotebookNode, path: Path) -> Path:
    """`path`, valid nbformat 4."""
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


def _without_places(text: str) -> str:
    # The environments may be links: what Python names is then their real place.
    places = {str(place.resolve()): shown for place, shown in _places()} | {
        str(place): shown for place, shown in _places()
    }
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return TERMINAL_CODES.sub("", text)


def _places() -> list[tuple[Path, str]]:
    return [
        (Path(sys.prefix), ".venv"),
        (ROOT, "."),
        (Path.home(), "~"),
        (Path(tempfile.gettempdir()), "$TMPDIR"),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.notebooks", description="Run the notebooks from top to bottom."
    )
    parser.add_argument("names", nargs="+", choices=SOURCES, metavar="NAME", help=", ".join(SOURCES))
    parser.add_argument("--save", action="store_true", help="also over the one in examples/")
    parser.add_argument(
        "--cell-timeout", type=int, default=CELL_TIMEOUT_SECONDS, metavar="SECONDS", help="(%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
