"""What was explained, twice: explanations.json for programs; explanations.html for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from scoring.page import open_templates
from scoring.proportions import proportion
from scoring.words import percent
from training.explain.explaining import MOST_PICTURED, Explanation, Explanations

JSON_NAME = "explanations.json"
PAGE_NAME = "explanations.html"
FORMAT_VERSION = "1.0"
MOST_AVERAGES = 24  # labels with average maps on the page, those with most pictures first
TITLES = {
    "cam": "Class activation",
    "integrated_gradients": "Integrated gradients",
    "shap": "SHAP",
    "occlusion": "Occlusion",
}
NOTES = {
    "cam": "Grad-CAM: where the last feature map speaks for the label. Coarse; one pass.",
    "integrated_gradients": "How much each pixel moves the answer on the way from blur to picture. Grainy.",
    "shap": "What each region of alike colour adds, fairly shared out, by hiding many combinations of them.",
    "occlusion": "What hiding one square window costs. No gradients: a check on the others.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A method over all pictures; means but for the counts."""

    method: str
    deletion: float
    insertion: float
    without_top: float
    better_than_random: dict[str, Any]  # share of pictures whose top fifth is worth more than a random fifth


def summarize(explanations: Explanations) -> list[Summary]:
    """The most faithful method (insertion - deletion) first."""
    summaries = []
    for method in explanations.methods:
        scores = [picture.scores[method] for picture in explanations.pictures]
        better = sum(
            picture.scores[method].without_top < picture.without_random for picture in explanations.pictures
        )
        summaries.append(
            Summary(
                method=method,
                deletion=fmean(score.deletion for score in scores),
                insertion=fmean(score.insertion for score in scores),
                without_top=fmean(score.without_top for score in scores),
                better_than_random=proportion(better, len(scores)),
            )
        )
    return sorted(summaries, key=lambda summary: summary.deletion - summary.insertion)


def write_json(explanations: Explanations, destination: Path, *, facts: Mapping[str, str]) -> None:
    """Every figure, no pictures."""
    document = {
        "format_version": FORMAT_VERSION,
        "facts": facts,
        "methods": [asdict(summary) for summary in summarize(explanations)],
        "probability": fmean(picture.probability for picture in explanations.pictures),
        "without_random": fmean(picture.without_random for picture in explanations.pictures),
        "pictures": [_figures(picture) for picture in explanations.pictures],
        "unreadable": [{"path": path, "reason": reason} for path, reason in explanations.unreadable],
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_page(
    explanations: Explanations, destination: Path, *, title: str, facts: Mapping[str, str]
) -> None:
    """The verdict, a table of methods, the average maps, and a gallery."""
    templates = open_templates(Path(__file__).parent)
    templates.filters["percent"] = percent
    averages = sorted(explanations.averages, key=lambda average: (-average.count, average.label))
    page = templates.get_template("report.html").render(
        title=title,
        lead=lead_words(explanations),
        summaries=summarize(explanations),
        methods=explanations.methods,
        titles=TITLES,
        notes=NOTES,
        probability=fmean(picture.probability for picture in explanations.pictures),
        without_random=fmean(picture.without_random for picture in explanations.pictures),
        averages=averages[:MOST_AVERAGES],
        num_averages=len(averages),
        pictures=_mistakes_first(explanations.pictures[:MOST_PICTURED]),
        count=len(explanations.pictures),
        unreadable=explanations.unreadable,
        facts=facts,
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(page, encoding="utf-8", errors="replace")  # a path may hold undecodable bytes


def lead_words(explanations: Explanations) -> str:
    """Whether the best method's maps can be believed, in figures."""
    best = summarize(explanations)[0]
    before = fmean(picture.probability for picture in explanations.pictures)
    random = fmean(picture.without_random for picture in explanations.pictures)
    return (
        f"Hiding the fifth of a picture that {TITLES[best.method]} marks takes the predicted label from "
        f"{percent(before)} to {percent(best.without_top)}; hiding a random fifth, to {percent(random)}."
    )


def _mistakes_first(pictures: Sequence[Explanation]) -> list[Explanation]:
    return sorted(pictures, key=lambda picture: picture.label in ("", picture.predicted))


def _figures(picture: Explanation) -> dict[str, Any]:
    figures = asdict(picture)
    del figures["thumbnails"]
    return figures
