"""The cleaned copy: what is left out and why, and an input that is only read."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from PIL import Image

from tests.bundles import draw_picture
from tests.doctor_facts import make_fact, near
from training.doctor.duplicates import find_exact_duplicates, find_near_duplicates
from training.doctor.files import FileFacts, examine
from training.doctor.fix import (
    CONTRADICTION,
    UNREADABLE,
    FixError,
    count_reasons,
    emptied_classes,
    plan_fix,
    write_cleaned_copy,
    write_manifest,
)


def plan(facts: list[FileFacts], *pairs: tuple[str, str]) -> dict[str, str]:
    return plan_fix(
        facts, groups=find_exact_duplicates(facts), pairs=[near(facts, *pair) for pair in pairs]
    )  # fmt: skip


def copies(*paths: str) -> list[FileFacts]:
    return [make_fact(path, sha256="same") for path in paths]


@pytest.mark.parametrize(
    ("paths", "removed"),
    [
        pytest.param(("train/cat/a.jpg", "train/cat/b.jpg"), {"train/cat/b.jpg"}, id="inside train"),
        pytest.param(("test/cat/a.jpg", "train/cat/b.jpg"), {"train/cat/b.jpg"}, id="train and test"),
        pytest.param(("train/cat/a.jpg", "valid/cat/b.jpg"), {"train/cat/a.jpg"}, id="train and valid"),
        pytest.param(("valid/cat/a.jpg", "test/cat/b.jpg"), {"valid/cat/a.jpg"}, id="valid and test"),
        pytest.param(("cat/a.jpg", "cat/b.jpg", "cat/c.jpg"), {"cat/b.jpg", "cat/c.jpg"}, id="no splits"),
        pytest.param(
            ("train/cat/a.jpg", "test/dog/b.jpg"), {"train/cat/a.jpg", "test/dog/b.jpg"}, id="labels"
        ),
    ],
)
def test_of_exact_copies_one_stays_and_none_of_contradicting_ones(
    paths: tuple[str, ...], removed: set[str]
) -> None:
    assert set(plan(copies(*paths))) == removed


@pytest.mark.parametrize(
    ("pair", "removed"),
    [
        pytest.param(("train/cat/a.jpg", "test/cat/b.jpg"), {"train/cat/a.jpg"}, id="test"),
        pytest.param(("train/cat/a.jpg", "valid/dog/b.jpg"), {"train/cat/a.jpg"}, id="valid, other label"),
        pytest.param(("train/cat/a.jpg", "train/cat/b.jpg"), set(), id="inside train"),
        pytest.param(("valid/cat/a.jpg", "test/cat/b.jpg"), set(), id="valid and test"),
    ],
)
def test_near_leak_leaves_train_only(pair: tuple[str, str], removed: set[str]) -> None:
    assert set(plan([make_fact(path) for path in pair], pair)) == removed


def test_near_leak_of_a_copy_takes_the_copy_that_stayed() -> None:
    facts = [*copies("train/cat/a.jpg", "train/cat/b.jpg"), make_fact("test/cat/c.jpg")]

    removed = plan(facts, ("train/cat/b.jpg", "test/cat/c.jpg"))

    assert set(removed) == {"train/cat/a.jpg", "train/cat/b.jpg"}


def test_train_stays_where_the_held_out_side_is_left_out_itself() -> None:
    facts = [make_fact("train/cat/a.jpg"), *copies("test/cat/b.jpg", "test/dog/b.jpg")]

    removed = plan(facts, ("train/cat/a.jpg", "test/cat/b.jpg"))

    assert set(removed) == {"test/cat/b.jpg", "test/dog/b.jpg"}


def test_class_of_which_nothing_is_left_is_named() -> None:
    facts = [make_fact("train/cat/a.jpg", reason="Not an image."), make_fact("train/dog/b.jpg")]

    assert emptied_classes(facts, plan(facts)) == ["train/cat"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A leak, a contradiction, a double, a broken file and two sound ones."""
    folder = tmp_path / "data"
    seeds = {
        "train/cat/leak.png": 1,
        "test/cat/leak.png": 1,
        "train/cat/both.png": 2,
        "train/dog/both.png": 2,
        "train/dog/one.png": 3,
        "train/dog/two.png": 3,
        "validation/cat/fine.png": 4,
        "train/cat/deep/er/fine.png": 5,
    }
    for path, seed in seeds.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(seed=seed).save(folder / path)
    (folder / "train/cat/broken.png").write_bytes(b"nothing")
    return folder


def checksums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fix(data: Path, destination: Path) -> dict[str, str]:
    facts = examine(data)
    removed = plan_fix(facts, groups=find_exact_duplicates(facts), pairs=find_near_duplicates(facts))
    write_cleaned_copy(data, destination, facts, removed)
    return removed


def test_cleaned_copy_holds_what_is_kept_and_the_input_is_untouched(data: Path, tmp_path: Path) -> None:
    before = checksums(data)

    removed = fix(data, tmp_path / "out")

    kept = {
        "test/cat/leak.png",
        "train/dog/one.png",
        "validation/cat/fine.png",
        "train/cat/deep/er/fine.png",
    }
    after = checksums(tmp_path / "out")
    assert set(after) - {"keep.txt", "removed.csv"} == kept
    assert all(after[path] == before[path] for path in kept)
    assert checksums(data) == before
    assert set((tmp_path / "out/keep.txt").read_text().splitlines()) == kept
    with (tmp_path / "out/removed.csv").open(newline="") as file:
        assert dict(list(csv.reader(file))[1:]) == removed
    assert count_reasons(removed)[CONTRADICTION] == 2 and count_reasons(removed)[UNREADABLE] == 1


def test_cleaned_copy_examined_again_has_nothing_left_to_remove(data: Path, tmp_path: Path) -> None:
    fix(data, tmp_path / "out")

    assert fix(tmp_path / "out", tmp_path / "again") == {}


def test_editing_the_copy_leaves_the_input_as_it_was(data: Path, tmp_path: Path) -> None:
    before = checksums(data)
    fix(data, tmp_path / "out")

    with (tmp_path / "out/train/dog/one.png").open("r+b") as file:
        file.write(b"edited")

    assert checksums(data) == before


@pytest.mark.parametrize(
    ("destination", "why"),
    [
        pytest.param("data/out", "lies inside", id="inside"),
        pytest.param("data", "lies inside", id="itself"),
        pytest.param("link/out", "lies inside", id="inside through a link"),
        pytest.param("full", "is not empty", id="not empty"),
        pytest.param("full/a.png", "is a file", id="file"),
    ],
)
def test_unfit_destination_is_refused_and_nothing_is_written(
    data: Path, tmp_path: Path, destination: str, why: str
) -> None:
    (tmp_path / "full").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "full/a.png")
    (tmp_path / "link").symlink_to(data)
    before = checksums(tmp_path)

    with pytest.raises(FixError, match=why):
        fix(data, tmp_path / destination)

    assert checksums(tmp_path) == before


def test_manifest_lists_the_kept_paths_alone(tmp_path: Path) -> None:
    facts = copies("train/cat/a.jpg", "train/cat/b.jpg")

    write_manifest(tmp_path / "new/keep.txt", facts, plan(facts))

    assert (tmp_path / "new/keep.txt").read_text() == "train/cat/a.jpg\n"
