"""Missing, failed, duplicated, renamed and unexpected answers: each is listed, none is dropped or guessed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from scoring.__main__ import main
from scoring.items import Item
from scoring.joining import Oddities, join, read_label_names, read_truth

LABELS = ("cat", "dog")
CAT, DOG = f"[[{math.log(0.75)}, {math.log(0.25)}]]", f"[[{math.log(0.1)}, {math.log(0.9)}]]"


def write(root: Path, *paths: str, content: str = "") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def join_all(images: Path, outputs: Path) -> tuple[dict[str, Item], Oddities]:
    oddities = Oddities()
    items = list(join(read_truth(images, LABELS), outputs, LABELS, oddities))
    assert len({item.path for item in items}) == len(items)
    return {item.path: item for item in items}, oddities


def test_output_without_the_leading_folders_is_found_and_listed_as_renamed(tmp_path: Path) -> None:
    images = write(tmp_path / "in", "cat/1.jpg", "dog/north/2.jpg")
    outputs = write(tmp_path / "out", "test/cat/1.jpg.out", "north/2.jpg.out", content=CAT)

    items, oddities = join_all(images, outputs)

    assert all(item.log_probabilities is not None for item in items.values())
    assert oddities.renamed == [("dog/north/2.jpg", "north/2.jpg.out"), ("cat/1.jpg", "test/cat/1.jpg.out")]


def test_file_name_that_two_labels_share_is_never_guessed(tmp_path: Path) -> None:
    images = write(tmp_path / "in", "cat/1.jpg", "dog/1.jpg")
    outputs = write(tmp_path / "out", "1.jpg.out", content=CAT)

    items, oddities = join_all(images, outputs)

    assert [item.error for item in items.values()] == ["no output", "no output"]
    assert oddities.unexpected == [("1.jpg.out", "it could be any of 2 images")]


def test_second_answer_is_listed_and_the_exact_path_counts(tmp_path: Path) -> None:
    images = write(tmp_path / "in", "dog/1.jpg")
    outputs = write(tmp_path / "out", "a/dog/1.jpg.out", content=CAT)
    write(outputs, "dog/1.jpg.out", content=DOG)

    items, oddities = join_all(images, outputs)

    row = items["dog/1.jpg"].log_probabilities
    assert row is not None and row.argmax() == 1
    assert oddities.duplicated == [("dog/1.jpg", "a/dog/1.jpg.out")]


def test_answer_without_an_image_is_unexpected(tmp_path: Path) -> None:
    images = write(tmp_path / "in", "cat/1.jpg")
    outputs = write(tmp_path / "out", "cat/1.jpg.out", "cat/2.jpg.out", content=CAT)

    items, oddities = join_all(images, outputs)

    assert items.keys() == {"cat/1.jpg"}
    assert oddities.unexpected == [("cat/2.jpg.out", "there is no such image")]


def test_missing_answer_has_the_reason_the_job_recorded(tmp_path: Path) -> None:
    images = write(tmp_path / "in", "cat/1.jpg", "cat/2.jpg")
    outputs = write(
        tmp_path / "out", "failed.jsonl", content='{"key": "cat/1.jpg", "reason": "400 no"}\n{"ke'
    )

    items, _ = join_all(images, outputs)

    assert [item.error for item in items.values()] == ["400 no", "no output"]


def test_lines_of_one_output_are_items_by_their_own_name_or_by_number(tmp_path: Path) -> None:
    labels = write(tmp_path, "labels.csv", content="path,label\ncat/1.jpg,cat\nmany.jsonl#2,dog\nx,\n")
    joined = json.dumps({"path": "cat/1.jpg", "SageMakerOutput": json.loads(CAT)})
    refused = json.dumps({"path": "x", "SageMakerOutput": {"error": {"code": "c", "message": "broken"}}})
    outputs = write(tmp_path / "out", "many.jsonl.out", content=f"{joined}\n{DOG[1:-1]}\n{refused}\n")

    items, oddities = join_all(labels / "labels.csv", outputs)

    assert {path: item.label for path, item in items.items()} == {
        "cat/1.jpg": "cat",
        "many.jsonl#2": "dog",
        "x": None,
    }
    assert items["many.jsonl#2"].log_probabilities is not None
    assert items["x"].error == "the server refused it: broken"
    assert oddities == Oddities()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("a.jpg,wolf\n", r"labels.csv:1: 'wolf' is not one of the 2 labels", id="unknown label"),
        pytest.param("a.jpg,cat\na.jpg,dog\n", r"labels.csv:2: 'a.jpg' has two labels", id="two labels"),
        pytest.param("a.jpg\n", r"labels.csv:1 has 1 columns", id="no label"),
    ],
)
def test_csv_that_cannot_be_used_names_the_line(tmp_path: Path, content: str, words: str) -> None:
    write(tmp_path, "labels.csv", content=content)

    with pytest.raises(ValueError, match=words):
        read_truth(tmp_path / "labels.csv", LABELS)


def test_csv_columns_are_found_by_name(tmp_path: Path) -> None:
    write(tmp_path, "labels.csv", content="\ufeffLabel,size,File\ndog,3,a.jpg\n")

    assert read_truth(tmp_path / "labels.csv", LABELS).labels == {"a.jpg": "dog"}
    assert read_label_names(tmp_path / "labels.csv") == ["dog"]


def test_command_line_lists_every_image_and_every_oddity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write(tmp_path / "in", "cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "other/=4.jpg")
    outputs = write(tmp_path / "out", "cat/1.jpg.out", "dog/3.jpg.out", "x/cat/1.jpg.out", content=CAT)
    write(outputs, "y.out", "other/=4.jpg.out", content=DOG)
    (tmp_path / "names.txt").write_text("cat\ndog\n")

    status = main([str(outputs), "--labels", str(images), "--names", str(tmp_path / "names.txt")])

    with (outputs / "items.csv").open() as file:
        rows = {(row["path"], row["status"]): row["predicted"] for row in csv.DictReader(file)}
    assert status == 0
    assert rows == {
        ("cat/1.jpg", "right"): "cat",
        ("dog/3.jpg", "wrong"): "cat",
        ("other/=4.jpg", "unlabelled"): "dog",
        ("cat/2.jpg", "failed"): "",
        ("cat/1.jpg", "duplicated"): "",
        ("y.out", "unexpected"): "",
    }
    assert json.loads((outputs / "scores.json").read_text())["counts"]["unexpected"] == 1
    assert "y.out" in (outputs / "report.html").read_text()
    assert "Right on 1 of 2 images." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        pytest.param(["in", "--labels", "in"], 1, "Nothing was scored", id="nothing to score"),
        pytest.param(["in", "--labels", "nowhere"], 2, "neither a folder nor a CSV", id="no labels"),
        pytest.param(
            ["in", "--labels", "in", "--artifact", "in"], 2, "manifest.json is missing", id="no artifact"
        ),
    ],
)
def test_command_line_that_cannot_score_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    write(tmp_path / "in", "cat/1.jpg", "dog/1.jpg")
    places = [str(tmp_path / word) if word in ("in", "nowhere") else word for word in arguments]

    assert main([*places, "--destination", str(tmp_path / "page")]) == status
    assert words in capsys.readouterr().err


def test_command_line_refuses_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere"), "--labels", str(tmp_path)])

    assert "does not exist" in capsys.readouterr().err
