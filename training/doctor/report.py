"""What the doctor found, twice: doctor.json for programs; for people doctor.html, which loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scoring.page import open_templates
from scoring.report import encode_thumbnail
from training.doctor.classes import count_by_split
from training.doctor.files import FileFacts
from training.doctor.findings import RANK, Finding, Verdict, verdict
from training.doctor.shift import PSI_NOTE, PSI_WARN, Distribution, build_distributions, describe_measure

JSON_NAME = "doctor.json"
PAGE_NAME = "doctor.html"
FORMAT_VERSION = "1.0"
MOST_TABLE_CLASSES = 12  # up to here the table of classes is open
LEADS: dict[Verdict, str] = {
    "ok": "Train on it. Nothing here would spoil a run.",
    "warn": "Look before you train.",
    "stop": "Do not train on this yet.",
}
MEASURE_TITLES = {
    "size": "Size (side of a square of as many pixels)",
    "brightness": "Brightness (mean luma, 0 to 255)",
    "blur": "Sharpness (log10 of the Laplacian's variance: left is blurred)",
}
WIDTH, HEIGHT, BASE = 340, 150, 128  # of a chart in SVG units; BASE is the axis' height


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A data set and all that was found."""

    data: Path
    facts: tuple[FileFacts, ...]
    findings: tuple[Finding, ...]  # worst first
    settings: dict[str, str]  # what was looked at and how

    @property
    def verdict(self) -> Verdict:
        """ok, warn or stop."""
        return verdict(self.findings)


def write_json(diagnosis: Diagnosis, destination: Path) -> None:
    """doctor.json: stable codes, and every affected path."""
    readable = [fact for fact in diagnosis.facts if not fact.reason]
    document = {
        "format_version": FORMAT_VERSION,
        "data": str(diagnosis.data),
        "verdict": diagnosis.verdict,
        "files": len(diagnosis.facts),
        "readable": len(readable),
        "counts": count_by_split(diagnosis.facts),
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "distributions": [asdict(distribution) for distribution in build_distributions(readable)],
        "settings": diagnosis.settings,
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_page(diagnosis: Diagnosis, destination: Path) -> None:
    """doctor.html: the verdict, a card per finding with its pictures, distributions, counts."""
    templates = open_templates(Path(__file__).parent)
    counts = count_by_split(diagnosis.facts)
    labels = sorted({label for split in counts.values() for label in split})
    page = templates.get_template("report.html").render(
        name=diagnosis.data.name,
        verdict=diagnosis.verdict,
        lead=LEADS[diagnosis.verdict],
        summary=summary_words(diagnosis),
        findings=[_card(finding, diagnosis.data) for finding in diagnosis.findings],
        charts=[
            _chart(distribution)
            for distribution in build_distributions([fact for fact in diagnosis.facts if not fact.reason])
        ],
        splits=[(split, split or "images", sum(counts[split].values())) for split in counts],
        rows=[(label, [counts[split].get(label, 0) for split in counts]) for label in labels],
        largest=max((count for split in counts.values() for count in split.values()), default=1),
        is_open=len(labels) <= MOST_TABLE_CLASSES,
        settings=diagnosis.settings,
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(page, encoding="utf-8", errors="replace")  # a path may hold undecodable bytes


def summary_words(diagnosis: Diagnosis) -> str:
    """What was looked at, and how many findings of each severity."""
    labels = len({fact.label for fact in diagnosis.facts})
    words = f"{_many(len(diagnosis.facts), 'file')} in {_many(labels, 'class', 'classes')}"
    by_severity = [
        _many(count, singular)
        for severity, singular in (("stop", "reason to stop"), ("warn", "warning"), ("note", "note"))
        if (count := sum(finding.severity == severity for finding in diagnosis.findings))
    ]
    found = ", ".join(by_severity).replace("reason to stops", "reasons to stop")
    return f"{words}: {found or 'nothing found'}."


def describe_findings(findings: Sequence[Finding]) -> list[str]:
    """A line per finding for a terminal, worst first."""
    ordered = sorted(findings, key=lambda finding: -RANK[finding.severity])
    return [f"{finding.severity:<5} {finding.title}  [{finding.code}]" for finding in ordered]


def _many(count: int, singular: str, plural: str = "") -> str:
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}".replace(",", "\u202f")


def _card(finding: Finding, data: Path) -> dict[str, Any]:
    examples: list[dict[str, Any]] = [
        {
            "caption": example.caption,
            "pictures": [
                {"path": path, "thumbnail": encode_thumbnail(data / path)} for path in example.paths
            ],
        }
        for example in finding.examples
    ]
    pictures = [picture for example in examples for picture in example["pictures"]]
    return {
        "finding": finding,
        "examples": examples,
        "are_pairs": len(pictures) > len(examples),
        "has_pictures": any(picture["thumbnail"] for picture in pictures),
    }


def _chart(distribution: Distribution) -> dict[str, Any]:
    """An outline per split; the first is filled. Numbers and split names only: nothing to escape."""
    peak = max(max(shares) for shares in distribution.shares.values()) or 1.0
    outlines = [
        f'<path class="split-{place}" d="{_outline(shares, peak)}"/>'
        for place, shares in enumerate(distribution.shares.values())
    ]
    low, high = distribution.edges[0], distribution.edges[-1]
    ticks = [
        f'<text x="{x}" y="{HEIGHT - 5}" text-anchor="{anchor}">'
        f"{describe_measure(distribution.measure, value)}</text>"
        for x, anchor, value in (
            (0, "start", low),
            (WIDTH / 2, "middle", (low + high) / 2),
            (WIDTH, "end", high),
        )
    ]
    title = MEASURE_TITLES[distribution.measure]
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by split">{"".join(outlines)}'
        f'<line x1="0" y1="{BASE}" x2="{WIDTH}" y2="{BASE}"/>{"".join(ticks)}</svg>'
    )
    return {
        "title": title,
        "svg": svg,
        "rows": [
            {
                "split": split or "images",
                "median": describe_measure(distribution.measure, distribution.medians[split]),
                "psi": f"{distribution.psi[split]:.2f}" if split in distribution.psi else "",
                "tone": _tone(distribution.psi.get(split, 0.0)),
            }
            for split in distribution.shares
        ],
    }


def _tone(psi: float) -> str:
    if psi >= PSI_WARN:
        return "bad"
    return "doubtful" if psi >= PSI_NOTE else ""


def _outline(shares: Sequence[float], peak: float) -> str:
    """A histogram's steps from the axis and back to it."""
    step = WIDTH / len(shares)
    points = [f"M0 {BASE}"]
    for place, share in enumerate(shares):
        height = BASE - (BASE - 6) * share / peak
        points.append(f"V{height:.1f}H{(place + 1) * step:.1f}")
    return "".join(points) + f"V{BASE}"
