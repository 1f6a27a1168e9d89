"""The measured numbers as Markdown, for benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.doctor.duplicates import MAX_DISTANCE


def print_tables(results: Mapping[str, Any]) -> None:
    """On stdout."""
    for name, planted in results["planted"].items():
        print(f"\n## {name}: {planted['files']} files with faults planted\n")
        print("| planted | found | hash bits median, max | correlation median, min | colour max |")
        print("|---|---|---|---|---|")
        for kind, leak in planted["leaks"].items():
            bits = f"{leak['bits_median']:g}, {leak['bits_max']}" if "bits_max" in leak else "–"
            like = f"{leak['correlation_median']}, {leak['correlation_min']}" if "bits_max" in leak else "–"
            colour = leak.get("colour_difference_max", "–")
            print(f"| {kind} | {leak['found']} of {leak['planted']} | {bits} | {like} | {colour} |")
        for kind in ("contradictions", "corrupt"):
            print(f"| {kind} | {planted[kind]['found']} of {planted[kind]['planted']} | – | – | – |")
        flagged, untouched = planted["untouched_in_near_pairs"], planted["untouched"]
        print(f"\nUntouched files in near pairs: {flagged} of {untouched} ({planted['share']:.2%}).")
        ranges = (f"{edges}: {n}" for edges, n in planted["candidates_among_untouched"].items())
        print(f"Pairs of untouched files within {MAX_DISTANCE} bits, by correlation: {', '.join(ranges)}.")
    print("\n## Throughput\n\n| set | files | files/s | with cache, first | second |\n|---|---|---|---|---|")
    for name, speed in results["throughput"].items():
        print(
            f"| {name} | {speed['files']} | {speed['files_per_second']} "
            f"| {speed['cache_first_seconds']} s | {speed['cache_second_seconds']} s |"
        )
    generated = results["generated"]
    print(
        f"\n{generated['files']} generated: {generated['files_per_second']} files/s, peak memory "
        f"{generated['peak_mib_before']} MiB before, {generated['peak_mib_examined']} examined, "
        f"{generated['peak_mib_searched']} searched\n"
    )
    print("| near-duplicate search over | seconds | ns per n log2 n | pairs |\n|---|---|---|---|")
    for search in generated["searches"]:
        print(
            f"| {search['files']} | {search['seconds']} | {search['ns_per_n_log2_n']} | {search['pairs']} |"
        )
    for name, real in results["real"].items():
        print(
            f"\n{name}: {real['files']} files, {real['unreadable']} unreadable, {real['animated']} animated"
        )
        print(f"{len(real['exact'])} exact groups, {len(real['near'])} near pairs {real['near_by_splits']}")
        print(f"{real['near_across_labels']} of them across labels")
