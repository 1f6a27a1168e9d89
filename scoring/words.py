"""What the numbers mean, in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WELL_CALIBRATED = 0.02
SIGNIFICANT = 0.05
FOLDER_CODE = re.compile(r"^(n\d{8}-|\d{3}\.)")  # n02085620-Chihuahua, 001.Affenpinscher

Scores = Mapping[str, Any]


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
            f"Nothing was scored. Of {count_images(counts['items'])}, {counts['failed']} got no usable "
            f"answer and {counts['unlabelled']} got one but lie in no folder named after a label."
        )
    if top1["correct"] == top1["count"]:
        return f"Right on {'the only image' if top1['count'] == 1 else 'all ' + count_images(top1['count'])}."
    words = f"Right on {top1['correct']} of {count_images(top1['count'])}."
    name_of, pair = short_names(scores), scores["confused_pairs"][0]
    if pair["count"] == 1:
        return words  # no mistake is more common than another
    predicted, label = name_of[pair["predicted"]], name_of[pair["label"]]
    return f"{words} The most common mistake is {predicted} for {label}, {pair['count']} times."


def comparison_words(comparison: Mapping[str, Any]) -> str:
    """In plain words, how these answers relate to the ones the trainer recorded."""
    compared, same = comparison["items_compared"], comparison["items_same_prediction"]
    strangers, absent = comparison["not_in_trainer_test_set"], comparison["trainer_items_without_answer"]
    if not compared:
        return "no image here is in the trainer's test set"
    words = [f"same answer on {same} of {count_images(compared)}"]
    if same == compared:
        words = [f"same answer on all {count_images(compared)}"]
    if comparison["trainer_top1_accuracy"] is not None:
        words.append(f"the trainer measured {percent(comparison['trainer_top1_accuracy'])}")
    if strangers:
        words.append(f"{count_images(strangers)} not in its test set")
    if absent:
        words.append(f"{count_images(absent)} of its test set not answered here")
    return "; ".join(words)


def alarm_paragraph(comparison: Mapping[str, Any]) -> str:
    """What the alarm found, and where to look first; empty where it is silent."""
    if not comparison["alarm"]:
        return ""
    affected, paired = comparison["affected"], comparison["paired"]
    words = (
        f"{affected['correct']} of {count_images(affected['count'])} ({percent(affected['value'])}, 95 % "
        f"interval {percent(affected['low'])} to {percent(affected['high'])}) got another answer than the "
        f"trainer recorded for {comparison['precision']}, farther off than rounding explains."
    )
    lost, won, chance = paired["only_trainer_right"], paired["only_served_right"], paired["p_value"]
    if chance is not None:
        verdict = "more than chance explains" if chance < SIGNIFICANT else "which may be chance"
        words += (
            f" Where only one of both was right, it was the trainer on {count_images(lost)} and the server "
            f"on {count_images(won)}, {verdict} (p = {chance:.2g})."
        )
    return (
        f"{words} The usual causes: pictures are decoded, resized or normalised in another way than in "
        "training, another artifact was deployed, or other pictures lie under the same names."
    )


def abstaining_words(scores: Scores) -> str:
    """What a threshold would buy."""
    if not scores["counts"]["scored"]:
        return ""
    now = scores["top1_accuracy"]["value"]
    sentences = [
        f"To be right {percent(row['wanted'], 0)} of the time it may answer {percent(row['coverage'])} "
        f"of the images: those with a confidence of {row['threshold']:.3f} or more."
        if row["threshold"] is not None
        else f"No threshold makes it right {percent(row['wanted'], 0)} of the time here."
        for row in scores["abstaining"]["wanted"]
        if now < row["wanted"]
    ]
    return " ".join(sentences) or f"Answering everything it is right {percent(now)} of the time."


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


def short_names(scores: Scores) -> dict[str, str]:
    """Label -> what people read: without the code that ImageNet's or Udacity's folders begin with."""
    labels: list[str] = scores["labels"]
    names = [FOLDER_CODE.sub("", label) or label for label in labels]
    return dict(zip(labels, names if len(set(names)) == len(labels) else labels, strict=True))


def count_images(count: int) -> str:
    """`1 image`, `2 images`."""
    return "1 image" if count == 1 else f"{count} images"
