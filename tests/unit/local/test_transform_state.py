"""What a transform job leaves behind and takes up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.platform import LocalError
from local.transform_input import InputObject
from local.transform_state import open_state

IDENTITY = {"model": "m", "split": "None"}


@pytest.fixture
def objects(tmp_path: Path) -> list[InputObject]:
    (tmp_path / "in").mkdir()
    for key in "abc":
        (tmp_path / "in" / key).write_text(key)
    return [InputObject(key, tmp_path / "in" / key) for key in "abc"]


def cut_short(directory: Path, objects: list[InputObject], precision: str = "int8") -> None:
    """A job that finished `a`, failed on `b` and was killed while it wrote the next failure."""
    with open_state(directory, IDENTITY, objects) as state:
        state.choose_precision(precision)
        (directory / "a.out").write_text("answer")
        state.record_failure("b", "400 no")
    with (directory / "failed.jsonl").open("a") as file:
        file.write('{"key": "c", "rea')


def test_torn_line_of_a_killed_job_is_passed_over(tmp_path: Path, objects: list[InputObject]) -> None:
    cut_short(tmp_path / "out", objects)

    with open_state(tmp_path / "out", IDENTITY, objects) as state:
        assert [item.key for item in state.pending] == ["c"]
        assert (state.kept, state.failed, state.precision) == (1, {"b": "400 no"}, "int8")


def test_empty_output_is_not_believed(tmp_path: Path, objects: list[InputObject]) -> None:
    cut_short(tmp_path / "out", objects)
    (tmp_path / "out/a.out").write_text("")

    with open_state(tmp_path / "out", IDENTITY, objects, retry_failed=True) as state:
        assert [item.key for item in state.pending] == ["a", "b", "c"]


def test_answers_of_two_precisions_are_not_mixed(tmp_path: Path, objects: list[InputObject]) -> None:
    cut_short(tmp_path / "out", objects)

    with (
        open_state(tmp_path / "out", IDENTITY, objects) as state,
        pytest.raises(LocalError, match=r"answers in fp32, but 1 objects in .* were answered in int8"),
    ):
        state.choose_precision("fp32")


def test_outputs_of_somebody_else_are_left_alone(tmp_path: Path, objects: list[InputObject]) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a.out", "other.out"):
        (tmp_path / "out" / name).write_text("older")

    with open_state(tmp_path / "out", IDENTITY, objects) as state:
        assert len(state.pending) == 3
    assert [path.name for path in (tmp_path / "out").glob("*.out")] == ["other.out"]


def test_unreadable_state_is_no_state(tmp_path: Path, objects: list[InputObject]) -> None:
    cut_short(tmp_path / "out", objects)
    (tmp_path / "out/transform.json").write_text('{"TransformJobSta')

    with open_state(tmp_path / "out", IDENTITY, objects) as state:
        assert len(state.pending) == 3
        stored = json.loads((tmp_path / "out/transform.json").read_text())
    assert stored["TransformJobStatus"] == "InProgress"
