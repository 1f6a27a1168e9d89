"""pip-audit's report judged: what has a fix and is not excused, and what was never looked up.

    python -m local.vulnerabilities build/scan/training.audit.json

pip-audit exits 0 with "No known vulnerabilities found" for packages it could not look up; here they count.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORE_FILE = Path(__file__).resolve().parents[1] / "requirements" / "vulnerabilities.ignore"


class AuditError(RuntimeError):
    """A report or ignore file that cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a report says, in sentences."""

    fixable: tuple[str, ...]
    noted: tuple[str, ...]
    unaudited: tuple[str, ...]
    num_packages: int


def judge_audit(report: Mapping[str, Any], ignored: Mapping[str, str]) -> Audit:
    """Split a report's vulnerabilities: pip-audit knows no severity, so every one with a fix counts."""
    fixable, noted, unaudited = [], [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unaudited.append(package["name"])
        for vulnerability in package.get("vulns", ()):
            identifiers = {vulnerability["id"], *vulnerability.get("aliases", ())}
            excuse = next((ignored[known] for known in sorted(identifiers) if known in ignored), "")
            what = f"{package['name']} {package['version']}: {vulnerability['id']}"
            if excuse:
                noted.append(f"{what} ignored: {excuse}")
            elif vulnerability["fix_versions"]:
                fixable.append(f"{what} fixed in {', '.join(vulnerability['fix_versions'])}")
            else:
                noted.append(f"{what} has no fix yet")
    return Audit(
        fixable=tuple(fixable),
        noted=tuple(noted),
        unaudited=tuple(unaudited),
        num_packages=len(report["dependencies"]),
    )


def parse_ignored(text: str) -> dict[str, str]:
    """`ID reason` per line; an ID without a reason is refused."""
    ignored = {}
    for line in text.splitlines():
        identifier, _, reason = line.partition("#")[0].strip().partition(" ")
        if identifier and not reason.strip():
            raise AuditError(f"{identifier} is ignored without a reason; write `{identifier} why`.")
        if identifier:
            ignored[identifier] = reason.strip()
    return ignored


def main(arguments: Sequence[str] | None = None) -> int:
    """0 clean, 1 fixable vulnerabilities, 2 unreadable, 3 packages that could not be looked up."""
    parser = argparse.ArgumentParser(
        prog="python -m local.vulnerabilities", description="Judge a pip-audit report."
    )
    parser.add_argument("report", type=Path, help="written by pip-audit --format json")
    parser.add_argument("--ignore-file", type=Path, default=IGNORE_FILE, help="lines of `ID reason`")
    options = parser.parse_args(arguments)
    try:
        ignored = parse_ignored(options.ignore_file.read_text()) if options.ignore_file.exists() else {}
        audit = judge_audit(json.loads(options.report.read_text()), ignored)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {options.report} is no pip-audit report ({error!r}); scan again.", file=sys.stderr)
        return 2
    for line in audit.noted:
        print(f"  Note: {line}")
    for line in audit.fixable:
        print(
            f"  Vulnerable: {line}; lock that version (make lock), or excuse it in {options.ignore_file.name}"
        )
    looked_up = audit.num_packages - len(audit.unaudited)
    print(f"  {looked_up} of {audit.num_packages} packages looked up, {len(audit.fixable)} to fix")
    if audit.unaudited:
        print(f"  Not looked up: {', '.join(audit.unaudited)}")
    return 1 if audit.fixable else 3 if audit.unaudited else 0


if __name__ == "__main__":
    sys.exit(main())
