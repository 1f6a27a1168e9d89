"""The page for people: one HTML file, the verdict first, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from scoring.charts import draw_abstaining, draw_confusion_matrix, draw_learning_curves, draw_reliability
from scoring.page import open_templates
from scoring.words import (
    abstaining_words,
    alarm_paragraph,
    calibration_words,
    comparison_words,
    count_images,
    lead_words,
    percent,
    short_names,
)

THUMBNAIL_PIXELS = 160
MOST_TABLE_CLASSES = 12  # up to here the confusion matrix and the per-class table fit a screen
MOST_FAILED_ITEMS = 200
PICTURED_PAIRS = 8
# What training accepts (MPO is read as JPEG); other readers only add faults, and EPS starts ghostscript.
PREVIEW_FORMATS = tuple("JPEG PNG WEBP AVIF GIF BMP DIB TIFF JPEG2000 PPM TGA".split())
# What Pillow raises over a broken, hostile or missing file, its EXIF block included.
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError, AttributeError),
    *(RuntimeError, AssertionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)

Scores = Mapping[str, Any]


def write_report(
    scores: Scores,
    destination: Path,
    *,
    title: str,
    images_dir: Path | None,
    history: Sequence[Mapping[str, float]] = (),
    precisions: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, str] = {},
    links: Mapping[str, str] = {},
) -> None:
    """`scores` as `score` made them; the answer of `compare`, when there is one, as `comparison`.

    `links`: words to the relative path of another page.
    """
    templates = open_templates(Path(__file__).parent)
    templates.filters["percent"] = percent
    page = templates.get_template("report.html").render(
        title=title,
        facts=facts,
        links=links,
        name_of=short_names(scores),
        scores=scores,
        lead=lead_words(scores),
        tiles=build_tiles(scores),
        matrix=_matrix(scores),
        classes=_classes(scores["per_class"]),
        is_open=len(scores["labels"]) <= MOST_TABLE_CLASSES,
        calibration_words=calibration_words(scores),
        abstaining_words=abstaining_words(scores),
        alarm=alarm_paragraph(scores["comparison"]) if scores.get("comparison") else "",
        mistakes=[
            {**mistake, "thumbnail": _thumbnail(images_dir, mistake["path"])}
            for mistake in scores["worst_mistakes"]
        ],
        pairs=_pictured_pairs(scores, images_dir),
        failed=scores["missing_or_failed"][:MOST_FAILED_ITEMS],
        oddities=_oddities(scores),
        precisions=precisions,
        curves=draw_learning_curves(history),
        reliability=draw_reliability(scores["calibration"]["bins"]) if scores["counts"]["scored"] else "",
        abstaining=draw_abstaining(scores["abstaining"]["curve"]) if scores["counts"]["scored"] else "",
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(page, encoding="utf-8", errors="replace")  # a path may hold undecodable bytes


def build_tiles(scores: Scores) -> list[dict[str, str]]:
    """The figures at the top; the tone `bad` where the eye should stop."""
    tiles = []
    if scores["counts"]["scored"]:
        tiles.append(_accuracy_tile("Top-1 accuracy", scores["top1_accuracy"]))
        if len(scores["labels"]) > 5:
            tiles.append(_accuracy_tile("Top-5 accuracy", scores["top5_accuracy"]))
    tiles.append(_failed_tile(scores))
    if scores.get("comparison"):
        tiles.append(_comparison_tile(scores["comparison"]))
    return tiles


def _tile(name: str, figure: str, words: str, *, unit: str = "", tone: str = "") -> dict[str, str]:
    return {"name": name, "figure": figure, "unit": unit, "words": words, "tone": tone}


def _accuracy_tile(name: str, accuracy: Mapping[str, Any]) -> dict[str, str]:
    interval = f"95 % interval {percent(accuracy['low'])} to {percent(accuracy['high'])}"
    words = f"{accuracy['correct']} of {accuracy['count']}; {interval}"
    return _tile(name, percent(accuracy["value"]), words)


def _failed_tile(scores: Scores) -> dict[str, str]:
    counts, accuracy = scores["counts"], scores["top1_accuracy_all"]
    words = []
    if not counts["failed"]:
        words.append("every image got an answer" if counts["items"] else "there were no images")
    elif accuracy["count"]:
        words.append(
            f"of {count_images(counts['items'])}; counted as wrong, top-1 is {percent(accuracy['value'])}"
        )
    if counts["unlabelled"]:
        words.append(f"{counts['unlabelled']} more have no known label")
    return _tile("Failed", str(counts["failed"]), "; ".join(words), tone="bad" if counts["failed"] else "")


def _comparison_tile(comparison: Mapping[str, Any]) -> dict[str, str]:
    compared, same = comparison["items_compared"], comparison["items_same_prediction"]
    difference = comparison["top1_difference"]
    figure, unit = percent(same / compared if compared else None), ""
    if compared and same == compared and not comparison["alarm"]:
        figure = "identical"
    if difference is not None and f"{100 * difference:.2f}".strip("-") != "0.00":
        figure, unit = f"{100 * difference:+.2f}".replace("-", "\N{MINUS SIGN}"), "points"
    tone = "bad" if comparison["alarm"] or not compared else ""
    return _tile("Against the trainer", figure, comparison_words(comparison), unit=unit, tone=tone)


def encode_thumbnail(file: Path) -> str:
    """A data URI of at most 160 pixels a side, upright; empty when the file cannot be read as an image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a preview is no place to complain about a file's metadata
            with Image.open(file, formats=PREVIEW_FORMATS) as image:
                image.draft("RGB", (2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
                upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        upright.save(buffer, "JPEG", quality=80)
    except UNREADABLE:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _thumbnail(images_dir: Path | None, path: str) -> str:
    return encode_thumbnail(images_dir / path) if images_dir else ""


def _pictured_pairs(scores: Scores, images_dir: Path | None) -> list[dict[str, Any]]:
    """The most confused labels with pictures of them; none without the images."""
    if images_dir is None:
        return []
    return [
        {
            **pair,
            "thumbnails": [(path, _thumbnail(images_dir, path)) for path in pair["examples"]],
        }
        for pair in scores["confused_pairs"][:PICTURED_PAIRS]
    ]


def _oddities(scores: Scores) -> list[dict[str, Any]]:
    """Answers that did not lie where their image does, one table for each kind that occurs."""
    kinds = {
        "renamed": (
            "Found under another path",
            "counted; the folders differ but the end of the path does not",
        ),
        "duplicated": ("Answered more than once", "the first answer counts"),
        "unexpected": ("Answers without an image", "not counted"),
    }
    return [
        {
            "title": title,
            "note": note,
            "count": scores["counts"][kind],
            "rows": [
                (row["output"], row.get("path") or row["error"]) for row in scores[kind][:MOST_FAILED_ITEMS]
            ],
        }
        for kind, (title, note) in kinds.items()
        if scores["counts"][kind]
    ]


def _matrix(scores: Scores) -> dict[str, Any] | None:
    """Cells of a table for few classes, one drawing for many."""
    counts: list[list[int]] = scores["confusion_matrix"]
    if not scores["counts"]["scored"]:
        return None
    if len(counts) > MOST_TABLE_CLASSES:
        return {"svg": draw_confusion_matrix(counts), "rows": []}
    rows = [
        [
            {"count": count, "share": count / max(sum(row), 1), "is_right": target == predicted}
            for predicted, count in enumerate(row)
        ]
        for target, row in enumerate(counts)
    ]
    return {"svg": "", "rows": list(zip(scores["labels"], rows, strict=True))}


def _classes(per_class: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Worst F1 first; labels without an image were not tested and come last."""
    numbered = [{**row, "number": number} for number, row in enumerate(per_class, start=1)]
    return sorted(numbered, key=lambda row: (not row["support"], row["f1"], row["number"]))
