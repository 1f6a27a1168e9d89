"""Does the data doctor find what was planted, how quickly, and what does it find in real sets?

    python -m benchmarks.doctor [--quick] [--files N]     # tables, then ONE line of JSON, on stdout

Real images are found by KENNEL_SHARED (default ../shared); everything is planted in temporary copies.
Mislabelled files need a trained model: benchmarks/doctor_mislabelled.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from artifact.cores import available_cores
from benchmarks.doctor.plants import draw_pictures, plant
from benchmarks.doctor.tables import print_tables
from training.doctor.cache import Cache
from training.doctor.duplicates import (
    MIN_CORRELATION,
    aligned_correlations,
    colour_differences,
    find_exact_duplicates,
    find_near_duplicates,
    near_hashes,
    order_by_certainty,
    stack_colours,
    stack_signatures,
)
from training.doctor.files import FileFacts, examine

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("KENNEL_SHARED", REPOSITORY.parent / "shared")) / "data"
PLANTED_SETS = ("dogs", "hurricane")
REAL_SETS = ("hurricane", "dogs", "woof", "odd")
SEARCH_SIZES = (1_000, 10_000, 100_000)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer files and repetitions, a minute")
    parser.add_argument("--files", type=int, help="generated images (default 100000, quick: 10000)")
    parser.add_argument("--generated-only", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    num_files = options.files or (10_000 if options.quick else 100_000)
    if options.generated_only:
        print(json.dumps(measure_generated(options.generated_only, num_files)))
        return
    results = {
        "machine": {"cpu": cpu_name(), "cores": available_cores(), "load_before": os.getloadavg()[0]},
        "planted": {name: measure_planted(name) for name in PLANTED_SETS},
        "throughput": {name: measure_throughput(name, options.quick) for name in PLANTED_SETS},
        "generated": measure_generated_apart(num_files),
        "real": {name: find_in_real_set(name) for name in REAL_SETS},
    }
    print_tables(results)
    print(json.dumps(results))


def measure_planted(name: str) -> dict[str, Any]:
    """Plants faults in a copy of a real set and counts which are found, and what else is."""
    with tempfile.TemporaryDirectory(prefix="kennel-doctor-") as folder:
        data = Path(folder) / name
        shutil.copytree(DATA / name, data)
        plants = plant(data, random.Random(20261121))
        facts = examine(data)
    index = {file.path: place for place, file in enumerate(facts)}
    groups = [{facts[place].path for place in group} for group in find_exact_duplicates(facts)]
    pairs = find_near_duplicates(facts)
    near = {(facts[pair.first].path, facts[pair.second].path): pair for pair in pairs}
    kinds = {}
    for kind, planted in plants.leaks.items():
        found = sum(is_found(kind, pair, groups, near) for pair in planted)
        kinds[kind] = {"planted": len(planted), "found": found}
        if kind != "exact":
            kinds[kind] |= distances(
                facts, [(index[a], index[b]) for a, b in planted], kind.startswith("mirrored")
            )
    untouched = {file.path for file in facts} - plants.paths()
    flagged = {path for pair in near for path in pair} & untouched
    originals = [file for file in facts if file.path in untouched and file.signature]
    return {
        "files": len(facts),
        "leaks": kinds,
        "contradictions": {
            "planted": len(plants.contradictions),
            "found": sum(any({*pair} <= group for group in groups) for pair in plants.contradictions),
        },
        "corrupt": {
            "planted": len(plants.corrupt),
            "found": sum(bool(facts[index[path]].reason) for path in plants.corrupt),
            "told_truncated": sum(facts[index[path]].truncated for path in plants.corrupt),
            "sound_files_refused": sum(bool(facts[index[path]].reason) for path in untouched),
        },
        "untouched": len(untouched),
        "untouched_in_near_pairs": len(flagged),
        "share": len(flagged) / len(untouched),
        "candidates_among_untouched": candidates_by_correlation(originals),
    }


def is_found(
    kind: str, pair: tuple[str, str], groups: Sequence[set[str]], near: Mapping[tuple[str, str], Any]
) -> bool:
    """The pair itself, and for a mirrored one that it is mirrored."""
    if kind == "exact":
        return any({*pair} <= group for group in groups)
    found = near.get((min(pair), max(pair)))
    return found is not None and found.mirrored == (kind.startswith("mirrored"))


def distances(facts: Sequence[FileFacts], pairs: list[tuple[int, int]], mirrored: bool) -> dict[str, Any]:
    """Hash distances and signature correlations of known pairs, found or not."""
    hashes = [(facts[a].mirrored_hash if mirrored else facts[a].hash) ^ facts[b].hash for a, b in pairs]
    bits = [different.bit_count() for different in hashes]
    firsts = stack_signatures([facts[a] for a, _ in pairs])
    seconds = stack_signatures([facts[b] for _, b in pairs])
    colours = stack_colours([facts[a] for a, _ in pairs]), stack_colours([facts[b] for _, b in pairs])
    order = np.arange(len(pairs))
    differences = colour_differences(
        colours[0], colours[1][:, :, ::-1] if mirrored else colours[1], order, order
    )
    correlations = aligned_correlations(firsts, seconds[:, :, ::-1] if mirrored else seconds, order, order)
    return {
        "bits_median": float(np.median(bits)),
        "bits_max": max(bits),
        "correlation_median": round(float(np.median(correlations)), 4),
        "correlation_min": round(float(correlations.min()), 4),
        "colour_difference_max": round(float(differences.max()), 1),
    }


def candidates_by_correlation(files: Sequence[FileFacts]) -> dict[str, int]:
    """How many pairs of untouched files the hash alone would report, by their correlation."""
    hashes = np.array([file.hash for file in files], dtype=np.uint64)
    signatures = stack_signatures(files)
    correlations: dict[tuple[int, int], float] = {}
    for first, second in near_hashes(hashes, hashes, order_by_certainty(signatures)):
        values = aligned_correlations(signatures, signatures, first, second)
        for a, b, value in zip(first.tolist(), second.tolist(), values.tolist(), strict=True):
            if files[a].sha256 != files[b].sha256:
                correlations[min(a, b), max(a, b)] = value
    edges = [-1.0, 0.5, 0.7, 0.8, 0.85, 0.9, MIN_CORRELATION, 0.95, 0.97, 1.01]
    counts, _ = np.histogram(list(correlations.values()), edges)
    return {
        f"{low:g} to {high:g}": int(count) for low, high, count in zip(edges, edges[1:], counts, strict=False)
    }


def measure_throughput(name: str, quick: bool) -> dict[str, Any]:
    """Files per second without a cache, filling one, and from it."""
    data = DATA / name
    seconds = [seconds_of(lambda: examine(data))[0] for _ in range(1 if quick else 3)]
    with tempfile.TemporaryDirectory(prefix="kennel-doctor-") as folder:
        path = Path(folder) / "doctor.sqlite3"
        cached = []
        for _ in range(2):
            with Cache(path) as cache:
                elapsed, facts = seconds_of(lambda cache=cache: examine(data, cache=cache))  # type: ignore[misc]
                cached.append(elapsed)
        cache_bytes = path.stat().st_size
    return {
        "files": len(facts),
        "seconds": [round(value, 2) for value in seconds],
        "files_per_second": round(len(facts) / min(seconds)),
        "cache_first_seconds": round(cached[0], 2),
        "cache_second_seconds": round(cached[1], 2),
        "cache_bytes_per_file": round(cache_bytes / len(facts)),
        "load": os.getloadavg()[0],
    }


def measure_generated_apart(num_files: int) -> dict[str, Any]:
    """In a process of its own, whose peak memory is then this measurement's."""
    with tempfile.TemporaryDirectory(prefix="kennel-doctor-") as folder:
        draw_pictures(Path(folder) / "train" / "noise", num_files)
        command = [
            sys.executable,
            "-m",
            "benchmarks.doctor",
            "--generated-only",
            folder,
            f"--files={num_files}",
        ]
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def measure_generated(folder: Path, num_files: int) -> dict[str, Any]:
    """Examines `folder`, searches growing parts of it; peak memory is this process's."""
    before_mib = peak_memory_mib()
    elapsed, facts = seconds_of(lambda: examine(folder))
    examined_mib = peak_memory_mib()
    shuffled = random.Random(1).sample(facts, len(facts))
    searches = []
    for size in (size for size in SEARCH_SIZES if size <= num_files):
        part = shuffled[:size]
        seconds, pairs = min(
            (seconds_of(lambda part=part: find_near_duplicates(part)) for _ in range(3)),  # type: ignore[misc]
            key=lambda timed: timed[0],
        )
        searches.append(
            {
                "files": size,
                "seconds": round(seconds, 3),
                "ns_per_n_log2_n": round(seconds / (size * math.log2(size)) * 1e9, 1),
                "pairs": len(pairs),
            }
        )
    return {
        "files": len(facts),
        "files_per_second": round(len(facts) / elapsed),
        "peak_mib_before": before_mib,
        "peak_mib_examined": examined_mib,
        "peak_mib_searched": peak_memory_mib(),
        "searches": searches,
    }


def find_in_real_set(name: str) -> dict[str, Any]:
    """Exact and near duplicates of a set as it is, named by path."""
    facts = examine(DATA / name)
    groups = find_exact_duplicates(facts)
    pairs = find_near_duplicates(facts)
    return {
        "files": len(facts),
        "unreadable": sum(bool(file.reason) for file in facts),
        "truncated": sum(file.truncated for file in facts),
        "animated": sum(file.frames > 1 for file in facts),
        "exact": [[facts[place].path for place in group] for group in groups],
        "near": [
            {
                "first": facts[pair.first].path,
                "second": facts[pair.second].path,
                "distance": pair.distance,
                "correlation": round(pair.correlation, 3),
                "mirrored": pair.mirrored,
            }
            for pair in pairs
        ],
        "near_by_splits": dict(
            Counter("-".join(sorted({facts[p.first].split, facts[p.second].split})) for p in pairs)
        ),
        "near_across_labels": sum(facts[p.first].label != facts[p.second].label for p in pairs),
    }


def seconds_of(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def peak_memory_mib() -> int:
    """This program's: `ru_maxrss` would also count the parent before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
