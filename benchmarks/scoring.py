"""Time and memory of scoring many predictions: made up, written, scored by the real command.

    python -m benchmarks.scoring [--count 1000000] [--classes 120] [--form lines|files] [--keep FOLDER]

The last line on stdout is JSON; peak_rss_mb is the scoring process's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

CHUNK = 10_000
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make, score, report."""
    parser = argparse.ArgumentParser(description="Time and memory of scoring many predictions.")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=120)
    parser.add_argument("--form", choices=("lines", "files"), default="lines")
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() if options.keep is None else nullcontext(options.keep) as place:
        print(json.dumps(measure(Path(place), options.count, options.classes, options.form)))


def measure(place: Path, count: int, num_classes: int, form: str) -> dict[str, float | int | str]:
    """Seconds and megabytes of one run over `count` made-up predictions."""
    output = write_predictions(place, count, num_classes, form)
    command = [
        *(sys.executable, "-m", "scoring", str(output), "--labels", str(place / "labels.csv")),
        *("--names", str(place / "names.txt"), "--destination", str(place / "page")),
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)  # this process's own peak; RUSAGE_CHILDREN is of any child
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    assert process.returncode == 0, "the scoring failed (see above)"
    peak_mb = usage.ru_maxrss / 1024
    scored = json.loads((place / "page/scores.json").read_text())["counts"]["scored"]
    assert scored == count, f"{scored} of {count} were scored"
    return {
        "form": form,
        "predictions": count,
        "classes": num_classes,
        "seconds": round(seconds, 1),
        "predictions_per_second": round(count / seconds),
        "peak_rss_mb": round(peak_mb),
    }


def write_predictions(place: Path, count: int, num_classes: int, form: str) -> Path:
    """Answers as a .out file each, or as the lines of one; labels.csv and names.txt beside them."""
    place.mkdir(parents=True, exist_ok=True)
    names = [f"label_{target:03}" for target in range(num_classes)]
    (place / "names.txt").write_text("\n".join(names) + "\n")
    with (place / "labels.csv").open("w") as labels, (place / "many.jsonl.out").open("w") as lines:
        labels.write("path,label\n")
        for number, target, row in make_rows(count, num_classes):
            path = f"{names[target]}/{number // 1000:04}/{number:07}.jpg"
            labels.write(f"{path},{names[target]}\n")
            if form == "lines":
                lines.write(f'{{"path":"{path}","SageMakerOutput":[{row}]}}\n')
            else:
                file = place / "out" / f"{path}.out"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"[{row}]")
    return place / ("many.jsonl.out" if form == "lines" else "out")


def make_rows(count: int, num_classes: int) -> Iterator[tuple[int, int, str]]:
    """(number, target, log-probabilities as JSON): right most of the time."""
    generator = np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        targets = generator.integers(num_classes, size=size)
        logits = generator.normal(size=(size, num_classes))
        logits[np.arange(size), targets] += 4
        rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for place in range(size):
            yield start + place, int(targets[place]), json.dumps([round(v, 5) for v in rows[place].tolist()])


if __name__ == "__main__":
    main()
