"""Figures of a search as people read them."""

from __future__ import annotations

from training.recipe_fields import Scalar

MINUTE_SECONDS, HOUR_SECONDS = 60, 3600


def format_duration(seconds: float) -> str:
    """`42 s`, `7 min 5 s`, `31 min`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < MINUTE_SECONDS:
        return f"{whole} s"
    if whole < 10 * MINUTE_SECONDS:
        return f"{whole // MINUTE_SECONDS} min {whole % MINUTE_SECONDS} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min"
    return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS} min"


def format_value(value: Scalar) -> str:
    """A hyperparameter: numbers to four significant digits, true and false as in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_objective(value: float | None, name: str) -> str:
    """Accuracies in percent, as everywhere; a dash for none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.2f} %" if name.endswith("_accuracy") else f"{value:.4g}"


def format_dollars(value: float | None) -> str:
    """`0.42 $`; a dash where it is not known."""
    return "\N{EN DASH}" if value is None else f"{value:.2f} $"
