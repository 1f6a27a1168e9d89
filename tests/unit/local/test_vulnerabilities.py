"""pip-audit reports, planted, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.vulnerabilities import AuditError, judge_audit, main, parse_ignored

FIXABLE = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": ["CVE-2026-1"], "description": "bad"}
UNFIXED = {"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": "bad"}


def make_report(*vulnerabilities: dict[str, Any], skipped: bool = False) -> dict[str, Any]:
    dependencies: list[dict[str, Any]] = [
        {"name": "pillow", "version": "1.0", "vulns": list(vulnerabilities)},
        {"name": "flask", "version": "3.0", "vulns": []},
    ]
    if skipped:
        dependencies.append({"name": "torch", "skip_reason": "Dependency not found"})
    return {"dependencies": dependencies, "fixes": []}


def test_vulnerability_with_a_fix_counts_and_one_without_is_noted() -> None:
    audit = judge_audit(make_report(FIXABLE, UNFIXED), {})

    assert audit.fixable == ("pillow 1.0: PYSEC-1 fixed in 2.0",)
    assert audit.noted == ("pillow 1.0: PYSEC-2 has no fix yet",)
    assert (audit.num_packages, audit.unaudited) == (2, ())


@pytest.mark.parametrize("identifier", ["PYSEC-1", "CVE-2026-1"])
def test_excused_vulnerability_is_noted_with_its_reason(identifier: str) -> None:
    audit = judge_audit(make_report(FIXABLE), {identifier: "not reachable"})

    assert audit.fixable == ()
    assert audit.noted == ("pillow 1.0: PYSEC-1 ignored: not reachable",)


def test_ignore_file_needs_a_reason_per_line() -> None:
    assert parse_ignored("# why\n\nCVE-1 we do not call it # since May\n") == {"CVE-1": "we do not call it"}
    with pytest.raises(AuditError, match="CVE-2 is ignored without a reason"):
        parse_ignored("CVE-2   # later")


@pytest.mark.parametrize(
    ("report", "exit_code"),
    [
        pytest.param(make_report(UNFIXED), 0, id="nothing to fix"),
        pytest.param(make_report(FIXABLE), 1, id="fixable"),
        pytest.param(make_report(FIXABLE, skipped=True), 1, id="fixable, and not all looked up"),
        pytest.param(make_report(skipped=True), 3, id="not all looked up"),
        pytest.param({"error": "half a report"}, 2, id="no report"),
    ],
)
def test_exit_code_tells_the_outcome(report: dict[str, Any], exit_code: int, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))

    assert main([str(tmp_path / "report.json"), "--ignore-file", str(tmp_path / "absent")]) == exit_code
