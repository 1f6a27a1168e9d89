"""The page: it stands alone, it escapes what it shows, and no bad file keeps it from being written."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoring.columns import tabulate
from scoring.comparison import Record, compare
from scoring.items import Item
from scoring.joining import Oddities
from scoring.report import (
    PREVIEW_FORMATS,
    encode_thumbnail,
)
from scoring.scores import score, score_columns
from scoring.words import calibration_words, comparison_words, lead_words, percent
from tests.scored_items import ITEMS, LABELS, item, render


def many(count: int, num_classes: int) -> tuple[list[Item], list[str]]:
    generator = np.random.default_rng(0)
    labels = [f"n{target:08d}-breed_{target}" for target in range(num_classes)]
    logits = generator.normal(size=(count, num_classes))
    rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    items = [
        Item(
            path=f"{labels[i % num_classes]}/{i}.jpg",
            label=labels[i % num_classes],
            log_probabilities=rows[i],
        )
        for i in range(count)
    ]
    return items, labels


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [
        pytest.param(0.9343, 1, "93.4 %", id="rounded"),
        pytest.param(1.0, 1, "100 %", id="all"),
        pytest.param(0.9999, 1, "> 99.9 %", id="nearly all"),
        pytest.param(0.999, 0, "> 99 %", id="nearly all without decimals"),
        pytest.param(0.0, 1, "0 %", id="none"),
        pytest.param(0.0001, 1, "< 0.1 %", id="nearly none"),
        pytest.param(None, 1, "–", id="unknown"),
    ],
)
def test_percent_never_rounds_to_all_or_none(fraction: float | None, digits: int, text: str) -> None:
    assert percent(fraction, digits).replace("\u00a0", " ") == text


@pytest.mark.parametrize("num_classes", [pytest.param(2, id="table"), pytest.param(133, id="drawing")])
def test_page_requests_nothing_from_outside(tmp_path: Path, num_classes: int) -> None:
    items, labels = many(300, num_classes)
    history = [{"epoch": 1, "train_loss": 2.0, "validation_loss": 1.0, "validation_top1_accuracy": 0.4}]

    page = render(tmp_path, score(items, labels), images_dir=tmp_path, history=history)

    links = re.findall(r"""(?:src|href|data|action)\s*=\s*["']?([^"'\s>]+)""", page) + re.findall(
        r"url\(([^)]*)", page
    )
    assert [link for link in links if not link.startswith(("data:image/", "#"))] == []
    assert "@import" not in page
    assert "<script" not in page


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    labels = ("<b>bold</b>", "$\\frac{$ & 'quoted\"")
    wrong = item("<b>bold</b>/<script>alert(1)</script>.jpg", labels[0], 0.1, 0.9)
    failed = Item(path="<img src=x>.jpg", label=None, log_probabilities=None, error="<i>why</i>")

    page = render(tmp_path, score([wrong, failed], labels), title="<u>title</u>", facts={"<s>": "<tt>"})

    for tag in ("<script", "<b>bold", "<img src=x", "<i>why", "<u>", "<s>", "<tt>"):
        assert tag not in page, tag
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in page


def test_undecodable_path_is_still_written(tmp_path: Path) -> None:
    page = render(tmp_path, score([item("damage/\udcff.jpg", "damage", 0.1, 0.9)], LABELS))

    assert "damage/?.jpg" in page


def test_mistake_is_captioned_with_both_labels_and_shown_as_a_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "damage").mkdir()
    Image.new("RGB", (400, 300), "teal").save(tmp_path / "damage" / "2.jpg")

    page = render(tmp_path, score(ITEMS, LABELS), images_dir=tmp_path)

    assert "said <b>no_damage</b> 98\u00a0% — is damage" in page
    assert page.count('src="data:image/jpeg;base64,') == 2  # among the mistakes and among the confused labels


def test_thumbnail_is_upright_and_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    Image.new("RGB", (1600, 800), "teal").save(tmp_path / "rotated.jpg", exif=exif)

    data = encode_thumbnail(tmp_path / "rotated.jpg").removeprefix("data:image/jpeg;base64,")

    with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
        assert thumbnail.size == (80, 160)


@pytest.mark.parametrize("kind", PREVIEW_FORMATS)
def test_every_preview_format_gets_a_thumbnail(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "picture", kind)

    assert encode_thumbnail(tmp_path / "picture").startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not an image", id="text"),
        pytest.param(b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00broken", id="broken EXIF"),
        pytest.param(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", id="truncated PNG"),
        pytest.param(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", id="EPS would run ghostscript"
        ),
        pytest.param(None, id="missing"),
    ],
)
def test_unreadable_image_gets_a_placeholder(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "damage").mkdir()
    if content is not None:
        (tmp_path / "damage" / "2.jpg").write_bytes(content)

    page = render(tmp_path, score(ITEMS, LABELS), images_dir=tmp_path)

    assert "no preview" in page


@pytest.mark.parametrize(
    ("items", "words"),
    [
        pytest.param([], "Nothing was scored: there were no images.", id="no images"),
        pytest.param(
            [Item(path="damage/1.jpg", label="damage", log_probabilities=None, error="no output")],
            "Nothing was scored. Of 1 image, 1 got no usable answer",
            id="all failed",
        ),
        pytest.param(
            [item("x/1.jpg", None, 0.9, 0.1)], "lie in no folder named after a label", id="no truth"
        ),
        pytest.param(ITEMS[:1], "Right on the only image.", id="one"),
        pytest.param((ITEMS[0], ITEMS[2]), "Right on all 2 images.", id="all right"),
        pytest.param(ITEMS, "Right on 2 of 3 images.", id="some wrong"),
        pytest.param(
            (*ITEMS, ITEMS[1]), "The most common mistake is no_damage for damage, 2 times.", id="pair"
        ),
    ],
)
def test_lead_says_plainly_what_happened(tmp_path: Path, items: Sequence[Item], words: str) -> None:
    scores = score(items, LABELS)

    assert words in lead_words(scores)
    assert words in render(tmp_path, scores)


def test_failed_items_are_listed_with_their_reason(tmp_path: Path) -> None:
    broken = Item(path="damage/3.jpg", label="damage", log_probabilities=None, error="no output")

    page = render(tmp_path, score([*ITEMS, broken], LABELS))

    assert "<td>damage/3.jpg</td><td>no output</td>" in page
    assert "counted as wrong, top-1 is 50.0\u00a0%" in page


@pytest.mark.parametrize(
    ("record", "words"),
    [
        pytest.param(
            {row.path: ("damage", -0.1) for row in ITEMS}, "same answer on 1 of 3 images", id="differs"
        ),
        pytest.param({"damage/1.jpg": ("damage", -0.1)}, "2 images not in its test set", id="strangers"),
        pytest.param(
            {"else.jpg": ("damage", -0.1)}, "no image here is in the trainer's test set", id="nothing shared"
        ),
        pytest.param(
            {row.path: (LABELS[place], -0.1) for row, place in zip(ITEMS, (0, 1, 1), strict=True)},
            "same answer on all 3 images",
            id="identical",
        ),
    ],
)
def test_comparison_is_told_in_words(
    tmp_path: Path, record: dict[str, tuple[str, float]], words: str
) -> None:
    known = Record(precision="fp32", predictions=record, top1_accuracy=2 / 3)
    comparison = compare(tabulate(ITEMS, LABELS, recorded=known.predicted), known)

    assert words in comparison_words(comparison)
    assert words.replace("'", "&#39;") in render(tmp_path, {**score(ITEMS, LABELS), "comparison": comparison})


@pytest.mark.parametrize(
    ("confidence", "right", "words"),
    [
        pytest.param(0.9, 5, "over-confident", id="claims more"),
        pytest.param(0.6, 10, "under-confident", id="claims less"),
        pytest.param(0.8, 8, "can be believed", id="fits"),
    ],
)
def test_calibration_words_follow_the_gap(confidence: float, right: int, words: str) -> None:
    answers = (confidence, 1 - confidence)
    items = [item(f"{i}.jpg", LABELS[0] if i < right else LABELS[1], *answers) for i in range(10)]

    assert words in calibration_words(score(items, LABELS))


@pytest.mark.parametrize(
    ("history", "num_curves"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([{"epoch": 1, "train_loss": 1.0}], 1, id="loss of one epoch"),
        pytest.param(
            [{"epoch": 1, "validation_loss": float("nan")}, {"epoch": 2, "train_loss": 1.0}], 1, id="gaps"
        ),
        pytest.param([{"epoch": 1, "train_loss": 1.0, "validation_top1_accuracy": 0.4}], 2, id="both"),
        pytest.param([{"epoch": 1, "images_per_second": 9.0}], 0, id="nothing to draw"),
    ],
)
def test_curves_are_drawn_as_far_as_the_history_goes(
    tmp_path: Path, history: list[dict[str, float]], num_curves: int
) -> None:
    page = render(tmp_path, score(ITEMS, LABELS), history=history)

    assert len(re.findall(r'aria-label="[^"]* by epoch"', page)) == num_curves


def test_precisions_are_listed_with_the_reason(tmp_path: Path) -> None:
    measured = {"top1_accuracy": 0.9, "agreement": 0.99, "speedup": 3.1, "latency_ms": 1.04}
    unmeasured = dict.fromkeys([*measured, "test_top1_accuracy"])
    precisions = [
        {"precision": "int8", "kept": True, "reason": "as right", "test_top1_accuracy": 0.8125, **measured},
        {"precision": "bf16", "kept": False, "reason": "no <bf16> here", **unmeasured},
    ]

    page = render(tmp_path, score(list(ITEMS), LABELS), precisions=precisions)

    section = re.sub(r"<[^>]+>|\s+", " ", page.split("<h2>Precisions</h2>")[1].split("</section>")[0])
    assert "3.10 ×" in section and "81.25" in section and "kept: as right" in section
    assert "not measured" in section and "refused: no &lt;bf16&gt; here" in section


def test_charts_take_their_colours_from_the_page(tmp_path: Path) -> None:
    page = render(tmp_path, score(*many(300, 20)), history=[{"epoch": 1, "train_loss": 1.0}])

    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--accent)" in drawings
    assert re.findall(r"(?:fill|stroke): #[0-9a-f]{3,6}", drawings) == []


def test_same_scores_give_the_same_page(tmp_path: Path) -> None:
    scores = score(*many(200, 30))

    assert render(tmp_path, scores) == render(tmp_path, scores)


def test_page_of_120_labels_is_small_and_reads_without_folder_codes(tmp_path: Path) -> None:
    items, labels = many(840, 120)

    page = render(tmp_path, score(items, labels))

    assert len(page) < 3_000_000
    assert re.search(r"said <b>breed_\d+</b>", page)
    assert labels[7] in page


def test_confused_labels_are_shown_with_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "damage").mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / "damage" / f"{number}.jpg")
    wrong = [item(f"damage/{number}.jpg", "damage", 0.1 * number, 1 - 0.1 * number) for number in range(1, 5)]

    page = render(tmp_path, score(wrong, LABELS), images_dir=tmp_path)

    section = page.split("The most confused labels")[1].split("</section>")[0]
    assert re.findall(r'alt="(damage/\d.jpg)"', section) == [f"damage/{number}.jpg" for number in range(1, 5)]
    assert "called <b>no_damage</b> 4 times" in section


def test_answers_that_could_not_be_joined_are_listed(tmp_path: Path) -> None:
    odd = Oddities(
        renamed=[("damage/1.jpg", "1.jpg.out")],
        duplicated=[("damage/1.jpg", "x/1.jpg.out")],
        unexpected=[("<y>.out", "there is no such image")],
    )

    page = render(tmp_path, score_columns(tabulate(ITEMS, LABELS), odd))

    for row in ("1.jpg.out</td><td>damage/1.jpg", "x/1.jpg.out</td><td>damage/1.jpg", "&lt;y&gt;.out"):
        assert row in page
