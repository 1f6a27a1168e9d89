"""Class names in target order."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact.labels import check_labels, read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("labels.txt", "b\na\n", id="text"),
        pytest.param("labels.json", '["b", "a"]', id="json"),
    ],
)
def test_file_gives_labels_in_its_own_order(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)

    assert read_labels(tmp_path / name) == ("b", "a")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        pytest.param(["a"], "at least two labels", id="one"),
        pytest.param(["a", " "], "' ' is empty", id="blank"),
        pytest.param(["a", "b", "a"], "'a' is given twice", id="twice"),
    ],
)
def test_labels_that_cannot_be_classes_are_refused(labels: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_labels(labels)


def test_bad_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"a": 1}')

    with pytest.raises(ValueError, match=r"labels\.json: expected a list, found dict"):
        read_labels(tmp_path / "labels.json")
