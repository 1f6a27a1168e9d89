"""Every check has a set that must set it off and a near twin that must not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import draw_picture
from tests.doctor_facts import codes, judge, make_fact, make_set
from training.doctor.diagnosis import diagnose, examine_for_job
from training.doctor.files import list_files
from training.doctor.findings import SENTENCE_CHARACTERS, sentence, verdict
from training.doctor.suspects import Suspect


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
