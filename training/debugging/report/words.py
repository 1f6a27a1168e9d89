"""What happened, in sentences and figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.debugging.report.run import Run, best_validation, duration_seconds
from training.debugging.rules import Verdict
from training.debugging.rules.phases import phase_seconds, timed_steps
from training.debugging.rules.selection import number, read_ending, train_steps

MOST_NAMED = 4  # rules in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure at the top of the page; the tone `bad` where the eye should stop."""

    name: str
    figure: str
    words: str
    unit: str = ""
    tone: str = ""


def lead_sentences(run: Run) -> list[str]:
    """Three: what ran and how it ended, what it reached, what the rules and the clock say."""
    return [_what_ran(run), _what_it_reached(run), _what_was_found(run)]


def build_tiles(run: Run) -> list[Tile]:
    """Accuracy, findings, speed and waiting, as far as they are known."""
    tiles = []
    best = best_validation(run.series)
    if best:
        epoch, accuracy, loss = best
        tiles.append(
            Tile(
                name="Best validation accuracy",
                figure=f"{100 * accuracy:.1f}",
                unit="%",
                words=f"after epoch {epoch}, with a loss of {number(loss)}",
            )
        )
    looked = [verdict for verdict in run.verdicts if verdict.status in ("IssuesFound", "NoIssuesFound")]
    tiles.append(
        Tile(
            name="Rules that fired",
            figure=str(len(run.fired)),
            words=f"of {len(looked)} that had something to look at",
            tone="bad" if run.fired else "",
        )
    )
    return tiles + _step_tiles(run)


def _step_tiles(run: Run) -> list[Tile]:
    """Its time and what of it was waiting; none where no step was timed."""
    steps = timed_steps(run.series)
    if not steps:
        return []
    seconds = float(np.median([step.seconds["total"] for step in steps]))
    images = float(np.median([step.images for step in steps]))
    waited = sum(step.seconds["data"] + step.seconds.get("transfer", 0.0) for step in steps)
    share = waited / sum(step.seconds["total"] for step in steps)
    return [
        Tile(
            name="A step",
            figure=f"{1000 * seconds:.3g}" if seconds < 1 else f"{seconds:.2f}",
            unit="ms" if seconds < 1 else "s",
            words=f"the median; {images / max(seconds, 1e-9):,.0f} images per second".replace(",", " "),
        ),
        Tile(
            name="Data wait",
            figure=f"{100 * share:.1f}",
            unit="%",
            words="of the step: fetching pixels and moving them to the device",
            tone="bad" if share > 0.2 else "",
        ),
    ]


def headline(run: Run) -> tuple[str, str]:
    """A few words and their tone: ok, warn or stop."""
    steps = train_steps(run.series)
    if not steps:
        return "Nothing was recorded.", "stop"
    if _failure(run) or not math.isfinite(steps[-1].loss):
        return "The training failed.", "stop"
    if read_ending(run.series, "ended") is None:
        return "The training was cut short.", "stop"
    if run.fired:
        return ("One finding." if len(run.fired) == 1 else f"{len(run.fired)} findings."), "warn"
    return "Nothing to complain about.", "ok"


def duration_words(seconds: float) -> str:
    """3723 -> '1 h 2 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def slowest_steps(run: Run, most: int = 8) -> list[dict[str, object]]:
    """The longest steps with what most of their time went into."""
    steps = sorted(timed_steps(run.series), key=lambda step: -step.seconds["total"])[:most]
    rows = []
    for step in steps:
        phases = {k: v for k, v in step.seconds.items() if k not in ("total", "record")}
        phase = max(phases, key=lambda name: phases[name])
        rows.append(
            {
                "step": step.step,
                "milliseconds": f"{1000 * step.seconds['total']:.1f}",
                "phase": phase,
                "share": f"{100 * phases[phase] / max(step.seconds['total'], 1e-12):.0f} %",
            }
        )
    return rows


def _failure(run: Run) -> str:
    return str(read_ending(run.series, "failure") or "")


def _what_ran(run: Run) -> str:
    job, steps = run.job, train_steps(run.series)
    if not steps:
        return "The series holds no step: the job ended before the first one, or recorded none."
    name = job.get("architecture", "The network")
    where = f" on {job['device']}" if "device" in job else ""
    precision = f" in {job['precision']}" if "precision" in job else ""
    done = f"{len(steps)} steps of up to {max(step.images for step in steps)} images"
    epochs = f" ({steps[-1].epoch + 1} of {job['epochs']} epochs)" if "epochs" in job else ""
    how = f"{name} trained {done}{epochs}{where}{precision} in {duration_words(duration_seconds(run.series))}"
    if reason := _failure(run):
        return f"{how} and failed: {reason}"
    if not math.isfinite(steps[-1].loss):
        return f"{how} and failed at step {steps[-1].step}, where the loss became {steps[-1].loss}."
    if read_ending(run.series, "ended") is None:
        return f"{how} and was killed after step {steps[-1].step}: this is what was recorded until then."
    planned = job.get("epochs", 0) * job.get("steps_per_epoch", 0)
    if planned and steps[-1].step + 1 < planned:
        return f"{how} and was stopped at step {steps[-1].step + 1} of {planned}."
    return f"{how} and ended as planned."


def _what_it_reached(run: Run) -> str:
    steps, best = train_steps(run.series), best_validation(run.series)
    if not steps:
        return ""
    last = steps[-max(1, len(steps) // 20) :]
    finite = [step for step in last if math.isfinite(step.loss)]
    loss = number(float(np.mean([step.loss for step in finite]))) if finite else "nan"
    accuracy = np.average([step.accuracy for step in last], weights=[max(step.images, 1) for step in last])
    training = f"the training loss ended at {loss} (accuracy {100 * accuracy:.1f} %)"
    if not best:
        return f"There was no validation pass; {training}."
    epoch, best_accuracy, best_loss = best
    return (
        f"The best validation accuracy was {100 * best_accuracy:.1f} % after epoch {epoch} (loss "
        f"{number(best_loss)}); {training}."
    )


def _what_was_found(run: Run) -> str:
    fired = run.fired
    if not fired:
        found = "No rule fired"
    else:
        names = ", ".join(verdict.rule for verdict in fired[:MOST_NAMED])
        more = f" and {len(fired) - MOST_NAMED} more" if len(fired) > MOST_NAMED else ""
        found = f"{len(fired)} {'rule' if len(fired) == 1 else 'rules'} fired: {names}{more}"
    steps = timed_steps(run.series)
    if not steps:
        return f"{found}."
    seconds = phase_seconds(steps)
    total = sum(seconds.values()) or 1.0
    first, second, *_ = [*sorted(seconds.items(), key=lambda item: -item[1]), ("other", 0.0)]
    return (
        f"{found}; of a step's time {100 * first[1] / total:.0f} % went into {first[0]} and "
        f"{100 * second[1] / total:.0f} % into {second[0]}."
    )


def order_verdicts(verdicts: list[Verdict]) -> list[Verdict]:
    """By the step at which they fired; those without one last."""
    return sorted(verdicts, key=lambda verdict: math.inf if verdict.step is None else verdict.step)
