"""The notebooks kept in examples/ are those their sources make, and ran to the end."""

from __future__ import annotations

import base64

import nbformat
import pytest
from nbformat import NotebookNode

from examples.notebooks import ROOT, SOURCES, build_notebook, clean_outputs, notebook_name

MOST_BYTES = 1_000_000  # a notebook in git is downloaded by everybody


def read(name: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(ROOT / "examples" / notebook_name(name), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


@pytest.mark.parametrize("name", SOURCES)
def test_kept_notebook_is_what_its_source_makes(name: str) -> None:
    kept, built = read(name), build_notebook(name)

    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in built.cells
    ], f"run: python -m examples.notebooks {name} --save"


@pytest.mark.parametrize("name", SOURCES)
def test_kept_notebook_ran_from_top_to_bottom(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]

    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.output_type == "error"]
    assert (ROOT / "examples" / notebook_name(name)).stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", SOURCES)
def test_place_of_execution_is_chosen_by_one_variable(name: str) -> None:
    code = [cell.source for cell in build_notebook(name).cells if cell.cell_type == "code"]

    assert code[0].startswith('ON = "local"')
    assert sum("ON = " in source for source in code) == 1


def test_machine_and_colours_are_taken_out_of_outputs_and_plots_stay() -> None:
    picture = base64.b64encode(b"png").decode()
    notebook = build_notebook("train_and_deploy")
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.metadata["execution"] = {"iopub.status.busy": "now"}
    cell.outputs = [
        nbformat.v4.new_output("stream", text=f"\x1b[31mwrote {ROOT}/build/a\x1b[0m\n"),  # type: ignore[no-untyped-call]
        nbformat.v4.new_output("display_data", data={"image/png": picture, "text/plain": f"{ROOT}"}),  # type: ignore[no-untyped-call]
    ]

    clean_outputs(notebook)

    assert cell.outputs[0].text == "wrote ./build/a\n"
    assert cell.outputs[1].data == {"image/png": picture, "text/plain": "."}
    assert "execution" not in cell.metadata
