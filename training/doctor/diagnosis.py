"""Facts about files -> what is wrong with a data set: pure functions, worst finding first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from training.doctor.cache import Cache
from training.doctor.classes import judge_classes, judge_label_names
from training.doctor.duplicates import Pair, find_exact_duplicates, find_near_duplicates
from training.doctor.faults import judge_files, judge_unreadable
from training.doctor.files import FileFacts, examine
from training.doctor.findings import (
    RANK,
    Finding,
)
from training.doctor.relations import (
    judge_exact_duplicates,
    judge_file_names,
    judge_near_duplicates,
    judge_placeholders,
)
from training.doctor.shift import judge_shift
from training.doctor.suspects import Suspect, judge_suspects


def diagnose(
    facts: Sequence[FileFacts],
    *,
    groups: Sequence[Sequence[int]],
    pairs: Sequence[Pair],
    suspects: Sequence[Suspect] = (),
) -> list[Finding]:
    """Everything there is to say, worst first. `groups`, `pairs`: exact and near duplicates as indices."""
    readable = [fact for fact in facts if not fact.reason]
    findings = [
        *judge_unreadable(facts),
        *judge_files(readable),
        *judge_placeholders(facts, groups),
        *judge_exact_duplicates(facts, groups),
        *judge_near_duplicates(facts, pairs),
        *judge_file_names(facts),
        *judge_classes(facts),
        *judge_label_names({fact.label for fact in facts}),
        *judge_shift(readable),
        *judge_suspects(suspects),
    ]
    return sorted(findings, key=lambda finding: -RANK[finding.severity])


def examine_for_job(splits: Mapping[str, Path], *, cache: Cache | None = None) -> list[Finding]:
    """The same judgements for a training job, whose splits (train, valid, test) lie anywhere; no model."""
    facts = [
        replace(fact, split=split, path=f"{split}/{fact.path}")
        for split, folder in splits.items()
        for fact in examine(folder, cache=cache)
    ]
    return diagnose(facts, groups=find_exact_duplicates(facts), pairs=find_near_duplicates(facts))
