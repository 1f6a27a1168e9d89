"""What the debugger's rules said, on file: a person acts on the words, and the evidence is what is drawn.

With KENNEL_WRITE_GOLDEN=1 a test that asks writes its file, for a change that is meant to change them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.debugging.rules.rule import Verdict

NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?%?")


def check_verdicts(found: Mapping[str, Verdict], file: Path, *, with_numbers: bool) -> None:
    """`with_numbers` where the series is made of numbers; what was trained differs between processors."""
    described = {name: _describe(verdict, with_numbers=with_numbers) for name, verdict in found.items()}
    if "KENNEL_WRITE_GOLDEN" in os.environ:
        file.write_text(json.dumps(described, indent=1) + "\n")

    golden = json.loads(file.read_text())

    assert list(described) == list(golden)
    for name, verdict in described.items():
        assert verdict == golden[name], name


def _describe(verdict: Verdict, *, with_numbers: bool) -> dict[str, Any]:
    words = {"status": verdict.status, "summary": verdict.summary, "advice": verdict.advice}
    if not with_numbers:
        masked = {name: NUMBER.sub("#", text) for name, text in words.items()}
        return {**masked, "evidence": list(verdict.evidence)}
    curves = {name: _digest(values) for name, values in verdict.evidence.items()}
    return {**words, "step": verdict.step, "evidence": curves}


def _digest(values: Sequence[float] | float) -> list[float]:
    """Length, first, last and sum of a curve, or the line's height."""
    if isinstance(values, int | float):
        return [_round(values)]
    finite = [value for value in values if math.isfinite(value)]
    return [len(values), *(_round(value) for value in (*finite[:1], *finite[-1:], math.fsum(finite)))]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
