"""What a trained model says about labels, as a judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.doctor.findings import (
    Example,
    Finding,
    counted,
    is_are,
    percent,
)

MOST_SUSPECT_EXAMPLES = 40  # mislabelled items are for looking through


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A file whose label the model does not believe."""

    path: str
    split: str
    label: str  # as filed
    suggested: str  # as the model sees it
    quality: float  # 0-1, the model's probability of the label it is filed under
    probability: float  # of `suggested`
    is_likely: bool = True  # else the model disagrees, but not more surely than it errs


def judge_suspects(suspects: Sequence[Suspect]) -> list[Finding]:
    """Files a trained model files otherwise, the surest first."""
    if not suspects:
        return []
    likely = sum(suspect.is_likely for suspect in suspects)
    doubtful = len(suspects) - likely
    caution = (
        " Of images it has learnt from it believes the labels it was taught: there are more than it tells."
        if any(suspect.split in ("train", "") for suspect in suspects)
        else ""
    )
    return [
        Finding(
            code="mislabelled",
            severity="warn" if likely else "note",
            count=likely,
            title=f"{counted(likely, 'file')} {is_are(likely)} likely mislabelled"
            + (f", {doubtful} more {is_are(doubtful)} worth a look" if doubtful else ""),
            explanation="Confident learning: the model says another label as surely as it usually does where "
            f"that label is right. A hard picture looks the same to it, so each needs an eye.{caution}",
            action="Look from the top, move the wrong ones to the right folder; stop when most are right.",
            examples=tuple(
                Example(
                    paths=(suspect.path,),
                    caption=f"filed under {suspect.label}, looks like {suspect.suggested} "
                    f"({percent(suspect.probability)})" + ("" if suspect.is_likely else ": worth a look"),
                )
                for suspect in suspects[:MOST_SUSPECT_EXAMPLES]
            ),
            paths=tuple(suspect.path for suspect in suspects),
        )
    ]
