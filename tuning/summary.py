"""What is left of a search for people and for the next step: tuning.json, report.html and best.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuning.recipes import find_changes, write_recipe
from tuning.report import write_report
from tuning.results import NAME, Results, write_results

BEST = "best.toml"
REPORT = "report.html"


def write_summary(results: Results, *, source: Path, output: Path) -> dict[str, Any]:
    """Write all three into `output`, best.toml from the recipe `source`. What to print: where they are."""
    output.mkdir(parents=True, exist_ok=True)
    write_results(results, output / NAME)
    write_report(results, output / REPORT)
    ended = sum(trial.state != "running" for trial in results.trials)
    summary: dict[str, Any] = {"trials": ended, "report": str(output / REPORT)}
    best = results.best
    if best is None:
        return summary
    write_recipe(
        source,
        output / BEST,
        hyperparameters=find_changes(source, results.fixed, best.parameters),
        heading=f"Trial {best.number}, the best of {ended}: {results.objective}={best.objective:.6f}.\n"
        f"Written by a tuning job; the final training: make train RECIPE={output / BEST}",
    )
    return {**summary, "best": str(output / BEST), results.objective: best.objective}
