"""report.html of one run, and of several side by side: self-contained, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoring.page import open_templates
from training.debugging.report import charts, words
from training.debugging.report.run import Run, best_validation, duration_seconds
from training.debugging.rules import Verdict
from training.debugging.rules.machine import Samples, read_all_samples
from training.debugging.rules.phases import PHASES, phase_seconds, timed_steps
from training.debugging.rules.selection import eval_steps, number, train_steps

MOST_OPERATORS = 12
REST = "other"
NOT_SET = {"memory_budget_bytes", "debug_interval", "pixels_bytes"}  # facts of a job that nobody chose


def write_page(runs: Sequence[Run], destination: Path) -> None:
    """One run in full; of several first how they compare, then each. `destination` is an .html file."""
    templates = open_templates(Path(__file__).parent)
    page = templates.get_template("debugging.html").render(
        title=f"Training debugger: {', '.join(run.name for run in runs)}",
        comparison=_compare(runs) if len(runs) > 1 else None,
        runs=[_describe(run) for run in runs],
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_text(page, encoding="utf-8", errors="replace")


def _describe(run: Run) -> dict[str, Any]:
    verdict, tone = words.headline(run)
    quiet = [v for v in run.verdicts if not v.fired and v.rule != "ProfilerReport"]
    return {
        "name": run.name,
        "headline": verdict,
        "tone": tone,
        "sentences": [sentence for sentence in words.lead_sentences(run) if sentence],
        "tiles": words.build_tiles(run),
        "curves": _curves(run),
        "fired": [_card(v) for v in words.order_verdicts(run.fired)],
        "quiet": [v for v in quiet if v.status == "NoIssuesFound"],
        "silent": [v for v in quiet if v.status != "NoIssuesFound"],
        "time": _describe_time(run),
        "operators": _describe_operators(run.operators),
        "usage": _draw_usage(run),
        "slowest": words.slowest_steps(run),
        "facts": {name: value for name, value in run.job.items() if not isinstance(value, (dict, list))},
    }


def _curves(run: Run) -> dict[str, str]:
    train, valid = train_steps(run.series), eval_steps(run.series)
    if not train:
        return {}
    return {
        title: charts.draw_curves(
            ([step.step for step in train], [getattr(step, name) for step in train]),
            ([step.step for step in valid], [getattr(step, name) for step in valid]),
            what=title,
            is_share=name == "accuracy",
        )
        for title, name in (("Loss", "loss"), ("Top-1 accuracy", "accuracy"))
    }


def _card(verdict: Verdict) -> dict[str, Any]:
    chart = charts.draw_evidence(verdict.evidence, verdict.step, rule=verdict.rule)
    return {"verdict": verdict, "chart": chart}


def _describe_time(run: Run) -> dict[str, Any] | None:
    """Mean seconds of the phases, as a ring and over the training; None where nothing was timed."""
    steps = timed_steps(run.series)
    if not steps:
        return None
    seconds = phase_seconds(steps)
    total = sum(seconds.values()) or 1.0
    return {
        "ring": charts.draw_pie(seconds, charts.PHASE_COLORS, title="shares of a step's time"),
        "bars": charts.draw_phases(
            [step.step for step in steps],
            {p: [step.seconds.get(p, 0.0) for step in steps] for p in PHASES if p in seconds},
        ),
        "rows": [
            (phase, f"{1000 * value:.2f}", f"{100 * value / total:.1f} %") for phase, value in seconds.items()
        ],
        "steps": len(steps),
    }


def _describe_operators(operators: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of operators.json, by group: data loading against convolution, batch norm, optimizer and the rest."""
    groups = operators.get("groups", {})
    total = sum(groups.values())
    if not total:
        return None
    shown = {g: s for g, s in groups.items() if g in charts.GROUP_COLORS and g != REST}
    shown[REST] = total - sum(shown.values())
    first, last = operators.get("steps", (0, 0))
    return {
        "ring": charts.draw_pie(shown, charts.GROUP_COLORS, title="shares of the operators' time"),
        "rows": [
            {
                "name": row["name"],
                "group": row["group"],
                "calls": row["calls"],
                "milliseconds": f"{1000 * row['seconds']:.2f}",
                "percent": f"{100 * row['seconds'] / total:.1f} %",
                "width": f"{100 * row['seconds'] / total:.1f}",
            }
            for row in operators.get("operators", [])[:MOST_OPERATORS]
        ],
        "steps": f"steps {first} to {last}" if first != last else f"step {first}",
    }


def _draw_usage(run: Run) -> str:
    samples = read_all_samples(run.series)
    if len(samples) < 2:
        return ""
    names = {"cpu_percent": "CPU", "memory_percent": "memory", "iowait_percent": "I/O wait"} | {
        f"gpu{gpu}_{figure}": f"GPU {gpu}{what}"
        for gpu in samples.gpus()
        for figure, what in (("percent", ""), ("memory_percent", " memory"))
    }
    shown = {title: samples.figures[name] for name, title in names.items() if name in samples.figures}
    return charts.draw_usage(samples.seconds, shown, _training_span(run, samples))


def _training_span(run: Run, samples: Samples) -> tuple[float, float] | None:
    """Seconds since the first sample at which training began and ended, as far as they were sampled."""
    steps = train_steps(run.series)
    if not steps:
        return None
    start, end = steps[0].time - steps[0].seconds.get("total", 0.0), steps[-1].time
    first = run.series.system[0].time
    return max(0.0, start - first), min(float(samples.seconds[-1]), end - first)


def _compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Curves in one chart, figures in one table, and the settings that differ."""
    names = [run.name for run in runs]
    jobs = [run.job for run in runs]
    settings = {name for job in jobs for name, value in job.items() if not isinstance(value, (dict, list))}
    settings -= NOT_SET
    return {
        "names": names,
        "curves": {
            title: charts.draw_comparison(
                {run.name: _curve_of(run, attribute) for run in runs},
                what=title,
                is_share=attribute == "accuracy",
            )
            for title, attribute in (("Loss", "loss"), ("Top-1 accuracy", "accuracy"))
        },
        "rows": [(title, [figure(run) for run in runs]) for title, figure in _FIGURES.items()],
        "differing": [
            (name, [str(job.get(name, "")) for job in jobs])
            for name in sorted(settings)
            if len({str(job.get(name, "")) for job in jobs}) > 1
        ],
    }


def _curve_of(run: Run, attribute: str) -> charts.Curve:
    """The validation passes where there are several, else the training steps."""
    passes = eval_steps(run.series)
    steps = passes if len(passes) > 1 else train_steps(run.series)
    return [step.step for step in steps], [getattr(step, attribute) for step in steps]


def _best(run: Run) -> str:
    best = best_validation(run.series)
    return f"{100 * best[1]:.1f} % (epoch {best[0]}, loss {number(best[2])})" if best else "no validation"


def _step_words(run: Run) -> str:
    steps = timed_steps(run.series)
    return f"{1000 * float(np.median([s.seconds['total'] for s in steps])):.1f} ms" if steps else "not timed"


def _wait_words(run: Run) -> str:
    seconds = phase_seconds(timed_steps(run.series))
    total = sum(seconds.values())
    waited = seconds.get("data", 0.0) + seconds.get("transfer", 0.0)
    return f"{100 * waited / total:.1f} % of the step" if total else "not timed"


_FIGURES: dict[str, Callable[[Run], str]] = {
    "In short": lambda run: words.headline(run)[0],
    "Best validation accuracy": _best,
    "Steps": lambda run: str(len(train_steps(run.series))),
    "Training time": lambda run: words.duration_words(duration_seconds(run.series)),
    "A step (median)": _step_words,
    "Data wait": _wait_words,
    "Rules that fired": lambda run: ", ".join(verdict.rule for verdict in run.fired) or "none",
}
