"""Every check has a set that must set it off and a near twin that must not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import draw_picture
from training.doctor.classes import count_by_split
from training.doctor.diagnosis import diagnose, examine_for_job
from training.doctor.duplicates import Pair
from training.doctor.files import UNREADABLE, FileFacts, list_files
from training.doctor.findings import SENTENCE_CHARACTERS, Finding, sentence, verdict
from training.doctor.shift import chance_psi, population_stability_index
from training.doctor.suspects import Suspect


def make_fact(path: str, **changes: Any) -> FileFacts:
    """An unremarkable picture at `split/label/name`, or `label/name`."""
    *split, label, _ = path.split("/")
    usual: dict[str, Any] = {
        "sha256": path,
        "size_bytes": 1000,
        "format": "JPEG",
        "mode": "RGB",
        "width": 128,
        "height": 128,
        "brightness": 120.0,
        "contrast": 50.0,
        "blur": 500.0,
    }
    return replace(UNREADABLE, path=path, split=split[0] if split else "", label=label, **(usual | changes))


def make_set(**changes: Any) -> list[FileFacts]:
    """Two classes of 40, 20 and 20 pictures in three splits, nothing wrong with them."""
    sizes = {"train": 40, "valid": 20, "test": 20}
    return [
        make_fact(f"{split}/{label}/{number:04}.jpg", **changes)
        for split, size in sizes.items()
        for label in ("cat", "dog")
        for number in range(size)
    ]


def near(facts: Sequence[FileFacts], first: str, second: str) -> Pair:
    places = {fact.path: place for place, fact in enumerate(facts)}
    return Pair(
        first=places[first], second=places[second], distance=3, mirrored=False, correlation=0.99
    )  # fmt: skip


def codes(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def judge(facts: Sequence[FileFacts], *, pairs: Sequence[Pair] = ()) -> dict[str, str]:
    """Code -> severity, with exact duplicates found by checksum."""
    groups: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        groups.setdefault(fact.sha256, []).append(index)
    copies = [group for group in groups.values() if len(group) > 1]
    return codes(diagnose(facts, groups=copies, pairs=pairs))


def test_sound_set_gets_no_finding_and_the_verdict_ok() -> None:
    findings = diagnose(make_set(), groups=[], pairs=[])

    assert findings == [] and verdict(findings) == "ok"


BROKEN: dict[str, Any] = {"format": "", "mode": "", "width": 0, "height": 0}


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        pytest.param({"reason": "Not an image.", **BROKEN}, "unreadable", id="unreadable"),
        pytest.param({"reason": "cut", "truncated": True, **BROKEN}, "truncated", id="truncated"),
        pytest.param({"reason": "empty", "size_bytes": 0, "truncated": True, **BROKEN}, "empty", id="empty"),
    ],
)
@pytest.mark.parametrize(
    ("files", "severity"),
    [pytest.param(1, "warn", id="1 in 400"), pytest.param(8, "stop", id="8 in 400")],
)
def test_broken_files_warn_and_stop_above_one_percent(
    extra: dict[str, Any], code: str, files: int, severity: str
) -> None:
    facts = [make_fact(f"train/{label}/{n:04}.jpg") for label in ("cat", "dog") for n in range(200)]
    facts[:files] = [replace(fact, sha256=fact.path, **extra) for fact in facts[:files]]

    assert judge(facts).get(code) == severity


def test_split_the_trainer_would_refuse_stops_whatever_the_share_of_all() -> None:
    facts = [make_fact(f"train/{label}/{n:04}.jpg") for label in ("cat", "dog") for n in range(400)]
    valid = [make_fact(f"valid/{label}/{n:04}.jpg") for label in ("cat", "dog") for n in range(20)]
    valid[0] = replace(valid[0], reason="Not an image.", **BROKEN)

    assert judge([*facts, *valid]) == {"unreadable": "stop"}


def test_text_file_among_the_pictures_is_a_note_not_an_unreadable_picture() -> None:
    facts = [*make_set(), make_fact("train/cat/Thumbs.db", reason="Not an image.", **BROKEN)]

    assert judge(facts) == {"stray": "note"}


FILE_CASES = [
    ("ignored-suffix", {"path": "train/cat/a"}, {"path": "train/cat/a.jpg"}),
    ("wrong-extension", {"format": "PNG"}, {"format": "MPO"}),
    ("animated", {"frames": 2}, {"frames": 1}),
    ("cmyk", {"mode": "CMYK"}, {"mode": "L"}),
    ("deep", {"mode": "I;16"}, {"mode": "P"}),
    ("exif-rotated", {"orientation": 6}, {"orientation": 1}),
    ("extreme-aspect", {"width": 300, "height": 100}, {"width": 299, "height": 100}),
    ("extreme-aspect", {"width": 10, "height": 400}, {"width": 100, "height": 200}),
    ("near-uniform", {"contrast": 5.0}, {"contrast": 7.0}),
]


@pytest.mark.parametrize(
    ("code", "odd", "twin"), [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in FILE_CASES]
)
def test_odd_file_is_found_and_its_twin_is_not(code: str, odd: dict[str, Any], twin: dict[str, Any]) -> None:
    first, *others = make_set()

    assert code in judge([replace(first, **odd), *others])
    assert code not in judge([replace(first, **twin), *others])


@pytest.mark.parametrize(
    ("files", "severity"), [pytest.param(1, "note", id="1 of 160"), pytest.param(2, "warn", id="2 of 160")]
)
def test_blank_pictures_warn_above_one_percent(files: int, severity: str) -> None:
    facts = make_set()
    facts[:files] = [replace(fact, contrast=1.0) for fact in facts[:files]]

    assert judge(facts) == {"near-uniform": severity}


def test_finding_about_files_names_them_all_and_shows_eight() -> None:
    facts = make_set(orientation=3)

    (finding,) = diagnose(facts, groups=[], pairs=[])

    assert finding.count == len(facts) and finding.paths == tuple(fact.path for fact in facts)
    assert len(finding.examples) == 8 and finding.examples[0].caption == "EXIF orientation 3"


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


def suspect(number: int, **changes: Any) -> Suspect:
    return replace(
        Suspect(
            path=f"test/cat/{number:04}.jpg",
            split="test",
            label="cat",
            suggested="dog",
            quality=0.01,
            probability=0.984,
        ),
        **changes,
    )


def test_suspects_make_one_finding_that_says_how_they_look() -> None:
    suspects = [suspect(1), suspect(2), suspect(3, is_likely=False)]

    (finding,) = diagnose(make_set(), groups=[], pairs=[], suspects=suspects)

    assert (finding.code, finding.severity, finding.count) == ("mislabelled", "warn", 2)
    assert finding.title == "2 files are likely mislabelled, 1 more is worth a look"
    assert finding.examples[0].caption == "filed under cat, looks like dog (98.4 %)"
    assert "learnt from" not in finding.explanation


def test_suspects_of_train_carry_a_caution() -> None:
    (finding,) = diagnose(make_set(), groups=[], pairs=[], suspects=[suspect(1, split="train")])

    assert "Of images it has learnt from" in finding.explanation


def test_worst_finding_comes_first_and_gives_the_verdict() -> None:
    facts = [make_fact(f"cat/{number:04}.jpg", orientation=6) for number in range(5)]

    findings = diagnose(facts, groups=[], pairs=[])

    assert [finding.severity for finding in findings] == ["stop", "warn", "note"]
    assert verdict(findings) == "stop" and verdict(findings[1:]) == "warn" and verdict(findings[2:]) == "ok"


def test_sentence_names_the_worst_finding_and_its_first_pairs() -> None:
    same = {"train/cat/0001.jpg", "test/cat/0002.jpg"}
    facts = [replace(fact, sha256="same") if fact.path in same else fact for fact in make_set(orientation=6)]
    group = [place for place, fact in enumerate(facts) if fact.path in same]

    text = sentence(diagnose(facts, groups=[group], pairs=[]))

    assert text.startswith("1 picture is both in train and in valid or test")
    assert "train/cat/0001.jpg = test/cat/0002.jpg" in text


def test_sentence_about_endless_paths_fits_a_failure_message() -> None:
    facts = [make_fact(f"train/cat/{'long' * 60}{number}.jpg", orientation=6) for number in range(30)]

    assert len(sentence(diagnose(facts, groups=[], pairs=[]))) <= SENTENCE_CHARACTERS


def test_sentence_about_nothing_says_so() -> None:
    assert sentence([]) == "Nothing was found wrong with the data."


def test_hundred_thousand_files_are_judged_in_seconds() -> None:
    names = [f"train/label{number % 1000}x/{number}.5_7.jpg" for number in range(100_000)]
    facts = [make_fact(name, sha256=name[:-5]) for name in names]
    groups = [[number, number + 1] for number in range(0, 20_000, 2)]
    started = time.process_time()

    findings = diagnose(facts, groups=groups, pairs=[])

    assert "contradiction-exact" in codes(findings)
    assert time.process_time() - started < 20


@pytest.mark.real_images
def test_hurricane_file_names_under_the_opposite_label_are_counted(real_images: Path) -> None:
    files = list_files(real_images / "hurricane")
    facts = [replace(make_fact(path), split=split, label=label) for path, split, label in files]

    (finding,) = diagnose(facts, groups=[], pairs=[])

    assert finding.code == "same-name" and finding.severity == "warn"
    assert "(712 in valid and 655 in test against another label in train)" in finding.title


def test_job_whose_splits_lie_apart_gets_the_leak_between_them(tmp_path: Path) -> None:
    places = {"train": tmp_path / "channel/a", "test": tmp_path / "elsewhere/b"}
    for place, folder in enumerate(places.values()):
        for label in ("cat", "dog"):
            (folder / label).mkdir(parents=True)
            for number in range(3):
                seed = 100 * place + 10 * len(label + "x" * (label == "dog")) + number
                noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((64, 64)).save(folder / label / f"{number}.png")
    draw_picture(seed=5).save(places["train"] / "cat/copy.png")
    draw_picture(seed=5).save(places["test"] / "cat/other.png")

    findings = examine_for_job(places)

    assert findings[0].code == "leak-exact" and findings[0].count == 1
    assert set(findings[0].paths) == {"train/cat/copy.png", "test/cat/other.png"}
