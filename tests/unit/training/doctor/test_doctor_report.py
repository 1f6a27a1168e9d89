"""doctor.json for programs, doctor.html for people."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import draw_picture
from tests.doctor_facts import make_fact, make_set
from training.doctor.diagnosis import diagnose
from training.doctor.files import FileFacts, examine
from training.doctor.report import (
    Diagnosis,
    describe_findings,
    summary_words,
    write_json,
    write_page,
)


def make_diagnosis(data: Path, facts: list[FileFacts], groups: list[list[int]] | None = None) -> Diagnosis:
    findings = diagnose(facts, groups=groups or [], pairs=[])
    return Diagnosis(
        data=data, facts=tuple(facts), findings=tuple(findings), settings={"data": str(data)}
    )  # fmt: skip


class Page(HTMLParser):
    """Tags balance; every address a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "link", "br", "path", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "line"):
            assert self.open.pop() == tag


@pytest.fixture
def leaking(tmp_path: Path) -> Diagnosis:
    """Real pictures, one of them in train and in test."""
    for place, path in enumerate(
        ("train/cat/a.png", "train/dog/b.png", "valid/cat/c.png", "valid/dog/d.png")
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(seed=place).save(tmp_path / path)
    for path in ("test/cat/a.png", "test/dog/e.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        draw_picture(seed=0 if "cat" in path else 9).save(tmp_path / path)
    facts = examine(tmp_path)
    paths = [fact.path for fact in facts]
    return make_diagnosis(
        tmp_path, facts, [[paths.index("test/cat/a.png"), paths.index("train/cat/a.png")]]
    )  # fmt: skip


def test_page_is_sound_says_the_verdict_first_and_fetches_nothing(leaking: Diagnosis, tmp_path: Path) -> None:
    write_page(leaking, tmp_path / "out/doctor.html")

    text = (tmp_path / "out/doctor.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.addresses and all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|<script|<link", text)
    assert (
        text.index("Do not train on this yet.") < text.index("leak-exact") < text.index("How the splits look")
    )


def test_page_shows_a_leaking_pair_side_by_side(leaking: Diagnosis, tmp_path: Path) -> None:
    write_page(leaking, tmp_path / "doctor.html")

    text = (tmp_path / "doctor.html").read_text()
    card = text[text.index("leak-exact") : text.index("</section>")]
    assert card.count("<img") == 2
    assert "test/cat/a.png" in card and "train/cat/a.png" in card and "test and train" in card


def test_page_escapes_names_from_outside(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    facts = [*make_set(), replace(make_fact("train/x/y.jpg", orientation=6), label=evil)]

    write_page(make_diagnosis(tmp_path / evil, facts), tmp_path / "doctor.html")

    text = (tmp_path / "doctor.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_files_without_a_preview_are_listed_with_their_reason(tmp_path: Path) -> None:
    facts = [*make_set(), make_fact("train/cat/broken.jpg", reason="Not a readable image.", width=0)]

    write_page(make_diagnosis(tmp_path, facts), tmp_path / "doctor.html")

    text = (tmp_path / "doctor.html").read_text()
    assert "<td>train/cat/broken.jpg</td><td>Not a readable image.</td>" in text and "<img" not in text


def test_set_of_unreadable_files_still_gets_its_page(tmp_path: Path) -> None:
    facts = [make_fact(f"{label}/a.jpg", reason="Not an image.", width=0) for label in ("cat", "dog")]

    write_page(make_diagnosis(tmp_path, facts), tmp_path / "doctor.html")
    write_json(make_diagnosis(tmp_path, facts), tmp_path / "doctor.json")

    assert Page((tmp_path / "doctor.html").read_text()).open == []
    assert json.loads((tmp_path / "doctor.json").read_text())["readable"] == 0


def test_json_names_every_affected_file_and_the_same_verdict(leaking: Diagnosis, tmp_path: Path) -> None:
    write_json(leaking, tmp_path / "doctor.json")

    document = json.loads((tmp_path / "doctor.json").read_text())
    leak = next(finding for finding in document["findings"] if finding["code"] == "leak-exact")
    assert document["verdict"] == "stop" and document["files"] == 6
    assert document["counts"]["train"] == {"cat": 1, "dog": 1}
    assert leak["severity"] == "stop" and set(leak["paths"]) == {"test/cat/a.png", "train/cat/a.png"}
    assert [d["measure"] for d in document["distributions"]] == ["size", "brightness", "blur"]


def test_shares_of_every_split_sum_to_one(leaking: Diagnosis, tmp_path: Path) -> None:
    write_json(leaking, tmp_path / "doctor.json")

    for distribution in json.loads((tmp_path / "doctor.json").read_text())["distributions"]:
        assert list(distribution["shares"]) == ["train", "valid", "test"]
        assert np.allclose([sum(shares) for shares in distribution["shares"].values()], 1.0)


def test_findings_become_lines_worst_first(leaking: Diagnosis) -> None:
    lines = describe_findings(leaking.findings)

    assert lines[0].startswith("stop  1 picture is both in train and in valid or test")
    assert lines[0].endswith("[leak-exact]")
    assert summary_words(leaking).startswith("6 files in 2 classes: 1 reason to stop, ")
