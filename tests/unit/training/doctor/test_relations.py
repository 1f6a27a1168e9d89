"""Copies, near copies and equal names: each is judged by where they lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.doctor_facts import judge, make_fact, make_set, near
from training.doctor.diagnosis import diagnose

COPY_CASES = [
    ("train/cat/0001.jpg", "test/cat/0002.jpg", {"leak-exact": "stop"}),
    ("train/cat/0001.jpg", "valid/cat/0002.jpg", {"leak-exact": "stop"}),
    ("valid/cat/0001.jpg", "test/cat/0002.jpg", {"leak-held-out": "warn"}),
    ("train/cat/0001.jpg", "train/dog/0002.jpg", {"contradiction-exact": "stop"}),
    ("train/cat/0001.jpg", "train/cat/0002.jpg", {"duplicate-exact": "note"}),
    ("train/cat/0001.jpg", "test/dog/0001.jpg", {"contradiction-exact": "stop", "leak-exact": "stop"}),
]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in COPY_CASES]
)
def test_exact_copies_are_judged_by_where_they_lie(first: str, second: str, expected: dict[str, str]) -> None:
    facts = [replace(fact, sha256="same") if fact.path in (first, second) else fact for fact in make_set()]

    assert judge(facts) == expected


def test_example_of_a_contradiction_shows_the_two_labels() -> None:
    same = {"train/cat/0001.jpg", "train/cat/0002.jpg", "train/dog/0002.jpg"}
    facts = [replace(fact, sha256="same") if fact.path in same else fact for fact in make_set()]
    group = [place for place, fact in enumerate(facts) if fact.path in same]

    findings = diagnose(facts, groups=[group], pairs=[])

    assert findings[0].code == "contradiction-exact"
    assert findings[0].examples[0].paths == ("train/cat/0001.jpg", "train/dog/0002.jpg")


def test_equal_unreadable_files_are_no_contradiction() -> None:
    broken = {"train/cat/0001.jpg", "train/dog/0002.jpg"}
    facts = [
        replace(fact, sha256="same", reason="Not an image.") if fact.path in broken else fact
        for fact in make_set()
    ]

    assert judge(facts) == {"unreadable": "stop"}


def test_many_duplicates_inside_a_split_warn() -> None:
    facts = make_set()
    facts[:8] = [replace(fact, sha256=f"same {place // 2}") for place, fact in enumerate(facts[:8])]

    assert judge(facts) == {"duplicate-exact": "warn"}


def test_picture_there_five_times_is_a_placeholder_and_four_times_is_not() -> None:
    facts = make_set()

    assert "placeholder" in judge([replace(fact, sha256="same") for fact in facts[:5]] + facts[5:])
    assert "placeholder" not in judge([replace(fact, sha256="same") for fact in facts[:4]] + facts[4:])


NEAR_CASES = [
    ("train/cat/0001.jpg", "test/cat/0002.jpg", {"leak-near": "warn"}),
    ("valid/cat/0001.jpg", "test/cat/0002.jpg", {"leak-near-held-out": "note"}),
    ("train/cat/0001.jpg", "train/dog/0002.jpg", {"contradiction-near": "warn"}),
    ("train/cat/0001.jpg", "train/cat/0002.jpg", {"duplicate-near": "note"}),
    ("train/cat/0001.jpg", "test/dog/0002.jpg", {"contradiction-near": "warn", "leak-near": "warn"}),
]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in NEAR_CASES]
)
def test_near_copies_are_judged_by_where_they_lie(first: str, second: str, expected: dict[str, str]) -> None:
    facts = make_set()

    assert judge(facts, pairs=[near(facts, first, second)]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("-95.640233_29.772749.jpeg", {"same-name": "warn"}, id="coordinates"),
        pytest.param("8a6400ff12de9931.jpg", {"same-name": "warn"}, id="hash"),
        pytest.param("20171231094512.jpg", {"same-name": "warn"}, id="time"),
        pytest.param("0900.jpg", {}, id="counter"),
        pytest.param("IMG_2301.jpg", {}, id="camera's counter"),
        pytest.param("photo.jpg", {}, id="no number"),
    ],
)
def test_same_file_name_under_two_labels_warns_where_the_name_tells(
    name: str, expected: dict[str, str]
) -> None:
    facts = [*make_set(), make_fact(f"train/cat/{name}"), make_fact(f"test/dog/{name}")]

    assert judge(facts) == expected


def test_same_name_in_two_splits_of_one_label_is_nothing() -> None:
    facts = [*make_set(), make_fact("train/cat/-95.64_29.77.jpeg"), make_fact("test/cat/-95.64_29.77.jpeg")]

    assert judge(facts) == {}


def test_same_name_counts_held_out_files_filed_against_train() -> None:
    places = ("train/cat/1.5_2.5.jpg", "test/dog/1.5_2.5.jpg", "valid/dog/1.5_2.5.jpg")

    (finding,) = diagnose([*make_set(), *map(make_fact, places)], groups=[], pairs=[])

    assert "(1 in valid and 1 in test against another label in train)" in finding.title
