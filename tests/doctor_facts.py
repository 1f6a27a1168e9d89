"""Facts of pictures that never were, and what the doctor makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from training.doctor.diagnosis import diagnose
from training.doctor.duplicates import Pair
from training.doctor.files import UNREADABLE, FileFacts
from training.doctor.findings import Finding


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
