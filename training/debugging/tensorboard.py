"""A stored series for TensorBoard: scalars, and histograms of weights, gradients, updates and activations.

    python -m training.debugging.tensorboard RUN [--output DIR]      # then tensorboard --logdir DIR

RUN is the OUT of `python -m local train`, a job's unpacked output.tar.gz, or the folder of series.jsonl. The
series holds reductions: a histogram's buckets are those between the percentiles it has.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from training.debugging.report.run import RunError, find_series
from training.debugging.series import Series, Step, Tensors, read_series

EDGES = ("min", "p5", "p25", "p50", "p75", "p95", "max")
SHARES = (0.0, 0.05, 0.20, 0.25, 0.25, 0.20, 0.05)  # of the values up to each edge, since the edge before


def main(arguments: list[str] | None = None) -> int:
    """Print the folder; 1 with one line where there is no series."""
    parser = argparse.ArgumentParser(
        prog="python -m training.debugging.tensorboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a job's output, or the folder of its series.jsonl")
    parser.add_argument("--output", type=Path, help="for the event file; default: tensorboard beside it")
    options = parser.parse_args(arguments)
    try:
        folder = find_series(options.run)
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    output = options.output or folder / "tensorboard"
    write_events(read_series(folder), output)
    print(output)
    return 0


def write_events(series: Series, directory: Path) -> None:
    """One more event file in `directory`."""
    with SummaryWriter(str(directory)) as writer:
        for step in series.steps:
            _write_step(writer, step)
        times = {step.step: step.time for step in series.steps}
        for record in series.tensors:
            _write_tensors(writer, record, times.get(record.step))
        start = min((sample.time for sample in series.system), default=0.0)
        for sample in series.system:
            seconds = round(sample.time - start)
            for name, value in sample.values.items():
                _write_scalar(writer, f"system/{name}", value, seconds, sample.time)


def _write_step(writer: SummaryWriter, step: Step) -> None:
    mode = step.mode.lower()
    values = {f"loss/{mode}": step.loss, f"accuracy/{mode}": step.accuracy}
    values |= {f"seconds_{mode}/{phase}": seconds for phase, seconds in step.seconds.items()}
    if step.learning_rate:
        values["learning_rate"] = step.learning_rate
    for name, value in values.items():
        _write_scalar(writer, name, value, step.step, step.time)


def _write_tensors(writer: SummaryWriter, record: Tensors, time: float | None) -> None:
    place = record.collection + ("" if record.mode == "TRAIN" else f"_{record.mode.lower()}")
    for name, values in record.values.items():
        if all(math.isfinite(values.get(edge, math.nan)) for edge in EDGES):
            histogram = build_histogram(values)
            writer.add_histogram_raw(f"{place}/{name}", global_step=record.step, walltime=time, **histogram)
        for scalar in ("mean_abs", "ratio", "inactive_0"):
            if scalar in values:
                _write_scalar(writer, f"{place}_{scalar}/{name}", values[scalar], record.step, time)


def build_histogram(values: Mapping[str, float]) -> dict[str, float | list[float]]:
    """The arguments of add_histogram_raw from a tensor's REDUCTIONS."""
    count = values["count"]
    edges = [values[edge] for edge in EDGES]
    return {
        "min": values["min"],
        "max": values["max"],
        "num": count,
        "sum": values["mean"] * count,
        "sum_squares": values["l2"] ** 2,
        "bucket_limits": edges,
        "bucket_counts": [share * count for share in SHARES],
    }


def _write_scalar(writer: SummaryWriter, name: str, value: float, step: int, time: float | None) -> None:
    writer.add_scalar(name, value, global_step=step, walltime=time)


if __name__ == "__main__":
    sys.exit(main())
