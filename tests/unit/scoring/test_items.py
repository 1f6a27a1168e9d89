"""Answers are joined with truths by path, and one bad answer spoils only its own item."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from scoring.items import Item, parse_output
from scoring.joining import read_outputs

LABELS = ("damage", "no_damage")
GOOD = json.dumps([[math.log(0.75), math.log(0.25)]])


def write(root: Path, path: str, content: str | bytes = b"") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def read_one(tmp_path: Path, content: str | bytes) -> Item:
    write(tmp_path, "in/damage/1.jpg")
    write(tmp_path, "out/damage/1.jpg.out", content)
    (item,) = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)
    return item


def test_same_file_name_under_two_labels_stays_two_items(tmp_path: Path) -> None:
    for label, content in (("damage", GOOD), ("no_damage", "[[-2.302585093, -0.105360516]]")):
        write(tmp_path, f"in/{label}/1.jpg")
        write(tmp_path, f"out/{label}/1.jpg.out", content)

    first, second = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)

    assert (first.path, first.label) == ("damage/1.jpg", "damage")
    assert (second.path, second.label) == ("no_damage/1.jpg", "no_damage")
    assert first.log_probabilities is not None and second.log_probabilities is not None
    assert np.exp(first.log_probabilities) == pytest.approx([0.75, 0.25])
    assert np.exp(second.log_probabilities) == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(
    ("path", "label"),
    [
        pytest.param("damage/2.jpg", "damage", id="label folder"),
        pytest.param("damage/north/2.jpg", "damage", id="nested below the label folder"),
        pytest.param("unsorted/2.jpg", None, id="folder that is no label"),
        pytest.param("unsorted/damage/2.jpg", None, id="label further down"),
        pytest.param("damage", None, id="file named as a label"),
    ],
)
def test_truth_is_the_first_folder_when_it_is_a_label(tmp_path: Path, path: str, label: str | None) -> None:
    write(tmp_path, f"in/{path}")
    write(tmp_path, f"out/{path}.out", GOOD)

    (item,) = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)

    assert (item.path, item.label, item.error) == (path, label, "")


def test_items_are_sorted_and_hidden_files_skipped(tmp_path: Path) -> None:
    for path in ("no_damage/b.jpg", "damage/z.jpg", "damage/.DS_Store", ".cache/x.jpg", "damage/a b#.jpg"):
        write(tmp_path, f"in/{path}")

    items = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)

    assert [item.path for item in items] == ["damage/a b#.jpg", "damage/z.jpg", "no_damage/b.jpg"]


def test_missing_output_is_an_item_with_an_error(tmp_path: Path) -> None:
    write(tmp_path, "in/damage/1.jpg")

    (item,) = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)

    assert item.log_probabilities is None
    assert (item.label, item.error) == ("damage", "no output")


def test_output_that_is_a_folder_is_an_item_with_an_error(tmp_path: Path) -> None:
    write(tmp_path, "in/damage/1.jpg")
    (tmp_path / "out/damage/1.jpg.out").mkdir(parents=True)

    (item,) = read_outputs(tmp_path / "in", tmp_path / "out", LABELS)

    assert (item.log_probabilities, item.error) == (None, "no output")


def test_missing_input_folder_raises_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        read_outputs(tmp_path / "nowhere", tmp_path, LABELS)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param("", "not JSON: (empty)", id="empty"),
        pytest.param("<html>502 Bad Gateway</html>", "<html>502 Bad Gateway", id="html"),
        pytest.param(b"\xff\xd8\xff\xe0", "not JSON", id="bytes"),
        pytest.param("[" * 100_000, "not JSON: [[[", id="nested too deep"),
        pytest.param('{"error": "out of memory"}', "out of memory", id="error answer"),
        pytest.param("[-0.1, -5.4]", "sum to 0.9094", id="flat list"),
        pytest.param("[[-0.1, -2.4], [-0.1, -2.4]]", "not one row", id="two rows"),
        pytest.param("[[-0.1, -2.4, -9.0]]", "3 values where 2 labels", id="too long"),
        pytest.param("[[NaN, -0.1]]", "nan, which is not a finite number", id="nan"),
        pytest.param("[[-Infinity, 0.0]]", "-inf, which is not a finite number", id="minus infinity"),
        pytest.param("[[1" + "0" * 400 + ", 0]]", "not a finite number", id="integer beyond float"),
        pytest.param('[["-0.1", "-2.4"]]', "'-0.1' where a number", id="strings"),
        pytest.param("[[true, false]]", "True where a number", id="booleans"),
        pytest.param("[[0.75, 0.25]]", "sum to 3.401", id="probabilities without logarithm"),
        pytest.param("[[-900, -900]]", "sum to 0", id="sum of nothing"),
        pytest.param("[[5000, 1]]", "sum to", id="overflow"),
    ],
)
def test_unusable_output_is_an_item_that_names_what_was_found(
    tmp_path: Path, content: str | bytes, found: str
) -> None:
    item = read_one(tmp_path, content)

    assert item.log_probabilities is None
    assert found in item.error
    assert len(item.error) < 160


def labelled(*pairs: tuple[str, object]) -> str:
    return json.dumps({"predictions": [{"label": label, "probability": value} for label, value in pairs]})


def test_labelled_answer_is_put_into_label_order() -> None:
    body = labelled(("no_damage", 0.9), ("damage", 0.1)).encode()

    assert np.exp(parse_output(body, LABELS)) == pytest.approx([0.1, 0.9])


def test_labelled_probability_of_zero_stays_finite() -> None:
    body = labelled(("no_damage", 1), ("damage", 0)).encode()

    assert np.isfinite(parse_output(body, LABELS)).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(labelled(("damage", 0.9)), "1 of 2 labels", id="only the best"),
        pytest.param(labelled(("damage", 0.9), ("cat", 0.1)), "'cat'", id="unknown label"),
        pytest.param(labelled(("damage", 1.5), ("no_damage", -0.5)), "negative", id="negative"),
        pytest.param(labelled(("damage", 0.9), ("no_damage", None)), "None where a number", id="null"),
        pytest.param('{"predictions": [{"label": []}]}', "lacks", id="no probability"),
        pytest.param('{"predictions": [1]}', "lacks", id="not an object"),
    ],
)
def test_labelled_answer_that_cannot_be_scored_says_why(tmp_path: Path, content: str, found: str) -> None:
    assert found in read_one(tmp_path, content).error
