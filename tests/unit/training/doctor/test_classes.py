"""Classes and splits: counts, labels that look like one, shift."""

from __future__ import annotations

import numpy as np
import pytest

from tests.doctor_facts import judge, make_fact
from training.doctor.classes import count_by_split
from training.doctor.files import FileFacts
from training.doctor.shift import chance_psi, population_stability_index


def counted(**counts: int) -> list[FileFacts]:
    """`train_cat=30` -> 30 pictures at train/cat; `cat=30` -> at cat."""
    return [
        make_fact(f"{place.replace('_', '/')}/{number:04}.jpg")
        for place, count in counts.items()
        for number in range(count)
    ]


VALID = {"valid_cat": 9, "valid_dog": 9}
CLASS_CASES = [
    ({"train_cat": 99, "train_dog": 99, **VALID}, {}),
    ({"cat": 99, "dog": 99}, {}),
    ({"cat": 99}, {"one-class": "stop"}),
    ({"train_cat": 99, "train_dog": 99}, {"no-valid": "warn"}),
    ({"train_cat": 99, "train_dog": 99, **VALID, "valid_fox": 2}, {"missing-from-train": "stop"}),
    ({"train_cat": 99, "train_dog": 99, "valid_cat": 9}, {"missing-from-valid": "warn"}),
    ({"train_cat": 99, "train_dog": 99, **VALID, "test_cat": 9}, {"missing-from-test": "warn"}),
    ({"train_cat": 20, "train_dog": 20, **VALID}, {}),
    ({"train_cat": 19, "train_dog": 20, **VALID}, {"tiny-class": "warn"}),
    ({"train_cat": 290, "train_dog": 100, **VALID}, {}),
    ({"train_cat": 300, "train_dog": 100, **VALID}, {"imbalance": "note"}),
    ({"train_cat": 1000, "train_dog": 100, **VALID}, {"imbalance": "warn"}),
    ({"valid_cat": 99, "valid_dog": 99}, {"no-train": "stop"}),
]


@pytest.mark.parametrize(
    ("counts", "expected"), [pytest.param(*case, id=str(case[0])) for case in CLASS_CASES]
)
def test_classes_are_judged_by_their_counts(counts: dict[str, int], expected: dict[str, str]) -> None:
    assert judge(counted(**counts)) == expected


def test_unreadable_files_do_not_count_as_images_of_a_class() -> None:
    facts = [make_fact("cat/a.jpg", reason="Not an image."), make_fact("dog/b.jpg")]

    assert count_by_split(facts) == {"": {"dog": 1}}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(("Cat", "cat"), ["same-label"], id="case"),
        pytest.param(("no damage", "no_damage"), ["same-label"], id="separator"),
        pytest.param(("café", "cafe"), ["same-label"], id="accent"),
        pytest.param(("dog", "dogs"), ["close-label"], id="plural"),
        pytest.param(("Labrador", "Labredor"), ["close-label"], id="one letter"),
        pytest.param(("Labrador", "Lebredor"), [], id="two letters"),
        pytest.param(("Labrador", "Labardor"), ["close-label"], id="swapped"),
        pytest.param(("n02085620-beagle", "n02085782-beagel"), ["close-label"], id="behind a code"),
        pytest.param(("cat", "car"), [], id="short"),
        pytest.param(("class_1", "class_2"), [], id="numbers"),
        pytest.param(("damage", "no_damage"), [], id="negation"),
        pytest.param(("Norfolk_terrier", "Norwich_terrier"), [], id="alike"),
    ],
)
def test_label_names_that_look_like_one_are_told(labels: tuple[str, str], expected: list[str]) -> None:
    facts = counted(**{label: 30 for label in ("a", "b")})
    facts += [make_fact(f"{label}/{number:04}.jpg") for label in labels for number in range(30)]

    assert list(judge(facts)) == expected


MEASURE_OF = {"size": ("width", 128.0), "brightness": ("brightness", 120.0), "blur": ("blur", 500.0)}


@pytest.mark.parametrize("measure", MEASURE_OF)
@pytest.mark.parametrize(
    ("shift", "severities"),
    [
        pytest.param(0.0, [], id="none"),
        pytest.param(0.45, ["note"], id="some"),
        pytest.param(1.5, ["warn"], id="large"),
    ],
)
def test_shift_of_the_test_split_is_told_by_its_size(
    measure: str, shift: float, severities: list[str]
) -> None:
    field, middle = MEASURE_OF[measure]
    random = np.random.default_rng(0)
    facts = [
        make_fact(
            f"{split}/{label}/{number:04}.jpg",
            **{field: middle * float(np.exp(0.2 * (random.normal() + (shift if split == "test" else 0))))},
        )
        for split in ("train", "valid", "test")
        for label in ("cat", "dog")
        for number in range(1000)
    ]

    findings = judge(facts)

    assert [findings[code] for code in findings if code == f"shift-{measure}"] == severities
    assert set(findings) <= {f"shift-{measure}"}


def test_small_split_drawn_from_the_same_pictures_shows_no_shift() -> None:
    found = 0
    for seed in range(50):
        random = np.random.default_rng(seed)
        facts = [
            make_fact(f"{split}/{label}/{n:04}.jpg", brightness=random.normal(120, 30))
            for split, size in (("train", 100), ("valid", 15))
            for label in ("cat", "dog")
            for n in range(size)
        ]
        found += bool(judge(facts))

    assert found <= 1


def test_psi_equals_the_formula_worked_by_hand() -> None:
    expected, actual = np.arange(1000.0), np.arange(500.0)  # the lower five bins hold everything

    psi = population_stability_index(expected, actual)

    e, low, high = 100.5 / 1005, 100.5 / 505, 0.5 / 505
    assert psi == pytest.approx(5 * ((low - e) * np.log(low / e) + (high - e) * np.log(high / e)))


def test_psi_of_constant_pictures_tells_a_change_in_either_direction() -> None:
    same, smaller, larger = np.full(500, 128.0), np.full(500, 127.0), np.full(500, 129.0)

    assert population_stability_index(same, same) == pytest.approx(0, abs=1e-9)
    assert population_stability_index(same, smaller) > 1 and population_stability_index(same, larger) > 1


def test_chance_psi_is_what_random_splits_stay_below() -> None:
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        first, second = np.asarray(random.normal(size=1000)), np.asarray(random.normal(size=200))
        drawn.append(population_stability_index(first, second))

    assert np.mean(np.array(drawn) > chance_psi(1000, 200)) < 0.01
    assert max(drawn) > 0.4 * chance_psi(1000, 200)
