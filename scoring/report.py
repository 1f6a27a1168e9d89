"""The page for people: one HTML file, the verdict first, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import io
import re
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageOps

from scoring.charts import draw_confusion_matrix, draw_learning_curves, draw_reliability

THUMBNAIL_PIXELS = 160
MOST_TABLE_CLASSES = 12  # up to here the confusion matrix and the per-class table fit a screen
MOST_FAILED_ITEMS = 200
WELL_CALIBRATED = 0.02
FOLDER_CODE = re.compile(r"^(n\d{8}-|\d{3}\.)")  # n02085620-Chihuahua, 001.Affenpinscher
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
) -> None:
    """`scores` as `score` made them; `compare_with_trainer`'s answer, when there is one, as `comparison`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    page = environment.get_template("report.html").render(
        title=title,
        facts=facts,
        name_of=_names(scores),
        scores=scores,
        lead=lead_words(scores),
        tiles=build_tiles(scores),
        matrix=_matrix(scores),
        classes=_classes(scores["per_class"]),
        is_open=len(scores["labels"]) <= MOST_TABLE_CLASSES,
        calibration_words=calibration_words(scores),
        mistakes=[
            {**mistake, "thumbnail": images_dir and encode_thumbnail(images_dir / mistake["path"])}
            for mistake in scores["worst_mistakes"]
        ],
        failed=scores["missing_or_failed"][:MOST_FAILED_ITEMS],
        precisions=precisions,
        curves=draw_learning_curves(history),
        reliability=draw_reliability(scores["calibration"]["bins"]) if scores["counts"]["scored"] else "",
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(page, encoding="utf-8", errors="replace")  # a path may hold undecodable bytes


def percent(fraction: float | None, digits: int = 1) -> str:
    """`93.4 %`; never rounds to 100 % or 0 % what is not exactly that."""
    if fraction is None:
        return "–"
    nearest, smallest = f"{100 * fraction:.{digits}f}", 10.0**-digits
    if fraction in (0, 1):
        nearest = f"{100 * fraction:.0f}"
    elif float(nearest) == 100:
        nearest = f"> {100 - smallest:.{digits}f}"
    elif float(nearest) == 0:
        nearest = f"< {smallest:.{digits}f}"
    return f"{nearest} %".replace(" ", "\u00a0")


def lead_words(scores: Scores) -> str:
    """The whole page in one or two sentences."""
    counts, top1 = scores["counts"], scores["top1_accuracy"]
    if not counts["items"]:
        return "Nothing was scored: there were no images."
    if not counts["scored"]:
        return (
            f"Nothing was scored. Of {_images(counts['items'])}, {counts['failed']} got no usable answer and "
            f"{counts['unlabelled']} got one but lie in no folder named after a label."
        )
    if top1["correct"] == top1["count"]:
        return f"Right on {'the only image' if top1['count'] == 1 else 'all ' + _images(top1['count'])}."
    words = f"Right on {top1['correct']} of {_images(top1['count'])}."
    name_of, pair = _names(scores), scores["confused_pairs"][0]
    if pair["count"] == 1:
        return words  # no mistake is more common than another
    predicted, label = name_of[pair["predicted"]], name_of[pair["label"]]
    return f"{words} The most common mistake is {predicted} for {label}, {pair['count']} times."


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
            f"of {_images(counts['items'])}; counted as wrong, top-1 is {percent(accuracy['value'])}"
        )
    if counts["unlabelled"]:
        words.append(f"{counts['unlabelled']} more have no known label")
    return _tile("Failed", str(counts["failed"]), "; ".join(words), tone="bad" if counts["failed"] else "")


def _comparison_tile(comparison: Mapping[str, Any]) -> dict[str, str]:
    compared, same = comparison["items_compared"], comparison["items_same_prediction"]
    difference = comparison["top1_difference"]
    figure, unit = percent(same / compared if compared else None), ""
    if compared and same == compared:
        figure = "identical"
    if difference is not None and f"{100 * difference:.2f}".strip("-") != "0.00":
        figure, unit = f"{100 * difference:+.2f}".replace("-", "\N{MINUS SIGN}"), "points"
    tone = "" if compared and same == compared else "bad"
    return _tile("Against the trainer", figure, comparison_words(comparison), unit=unit, tone=tone)


def comparison_words(comparison: Mapping[str, Any]) -> str:
    """In plain words, how these answers relate to the ones the trainer recorded."""
    compared, same = comparison["items_compared"], comparison["items_same_prediction"]
    strangers, absent = comparison["not_in_trainer_test_set"], comparison["trainer_items_without_answer"]
    if not compared:
        return "no image here is in the trainer's test set"
    words = [f"same answer on {same} of {_images(compared)}"]
    if same == compared:
        words = [f"same answer on all {_images(compared)}"]
    if comparison["trainer_top1_accuracy"] is not None:
        words.append(f"the trainer measured {percent(comparison['trainer_top1_accuracy'])}")
    if strangers:
        words.append(f"{_images(strangers)} not in its test set")
    if absent:
        words.append(f"{_images(absent)} of its test set not answered here")
    return "; ".join(words)


def calibration_words(scores: Scores) -> str:
    """Whether a stated confidence can be believed."""
    calibration, accuracy = scores["calibration"], scores["top1_accuracy"]["value"]
    error, confidence = calibration["expected_calibration_error"], calibration["mean_confidence"]
    if error is None:
        return ""
    means = f"On average it claims {percent(confidence)} and is right {percent(accuracy)} of the time"
    if error <= WELL_CALIBRATED:
        return f"{means}: its confidence can be believed (expected calibration error {percent(error)})."
    tendency = "over-confident" if confidence > accuracy else "under-confident"
    return f"{means}: it is {tendency} (expected calibration error {percent(error)})."


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


def _names(scores: Scores) -> dict[str, str]:
    """Label -> what people read: without the code that ImageNet's or Udacity's folders begin with."""
    labels: list[str] = scores["labels"]
    names = [FOLDER_CODE.sub("", label) or label for label in labels]
    return dict(zip(labels, names if len(set(names)) == len(labels) else labels, strict=True))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
