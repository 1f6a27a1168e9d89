"""Images a second of a whole Batch Transform job, beside the processor's limit and the usual server's job.

    python -m benchmarks.transform                     ResNet-50 int8, both sets, a minute a job: 10 minutes
    python -m benchmarks.transform --sets dogs --seconds 10 --servers kennel

In one run on the same pictures: the limit (decode and infer in processes of their own, without HTTP, the best
arrangement) before and after; the job with a picture per request; the job with many per request (JSON Lines);
the first one against the usual Flask and torch server. Run it alone on the machine. Writes
benchmarks/results/transform_<cpu>_<yyyymm>.md; the last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.serving.artifacts import NETWORKS, ArtifactError, prepare_artifact
from benchmarks.serving.ceiling import LimitError, local_limit
from benchmarks.serving.environments import prepare_environment
from benchmarks.serving.machine import describe_machine, describe_versions, file_name
from benchmarks.serving.places import RESULTS, WORK
from benchmarks.serving.servers import ServerError
from benchmarks.sources import stamp_line
from benchmarks.transform.inputs import SETS, link_objects, list_pictures, write_lines
from benchmarks.transform.jobs import LINES, JobError, flask, kennel, run_job
from local.platform import LocalError

logger = logging.getLogger(__name__)

FOLDER = WORK / "transform"
LIMIT_SECONDS = 8.0
ARRANGEMENTS = ("pinned", "unpinned", "streams")
SOURCES = ("serving/", "local/transform_job.py", "local/invoking.py")
FLASK_CONCURRENT = 4  # the sample answers no /execution-parameters: as many as Kennel asks for on two cores


def main() -> None:
    """Measure, write the page, print the JSON."""
    options = _parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    head = {
        "today": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": describe_versions(["flask"]),
        "command": " ".join(["python -m benchmarks.transform", *sys.argv[1:]]),
    }
    try:
        model_dir = prepare_artifact(options.network)
        result = {name: measure(name, model_dir, options) for name in options.sets}
    except (ArtifactError, JobError, LimitError, LocalError, ServerError, FileNotFoundError) as error:
        sys.exit(f"The benchmark cannot go on: {error}")
    shutil.rmtree(FOLDER)
    name = file_name(head["today"]).replace("serving_", "transform_")
    path = options.results / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(head, options.network, result), encoding="utf-8")
    print(json.dumps({"network": options.network, "page": path.name, "sets": result}))


def measure(name: str, model_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one set."""
    pictures = list_pictures(name)
    limit = local_limit(model_dir, link_objects(pictures, FOLDER / "limit", len(pictures)))
    limits = {arrangement: limit(arrangement, LIMIT_SECONDS) for arrangement in ARRANGEMENTS}
    best = max(limits, key=limits.__getitem__)
    count = round(limits[best] * options.seconds)
    logger.info("%s: limit %.1f images/s (%s), %d images a job", name, limits[best], best, count)
    objects = link_objects(pictures, FOLDER / "objects", count)
    lines = write_lines(pictures, FOLDER / "lines" / "pictures.jsonl", count)
    output = FOLDER / "output"
    timed = {
        "one_per_request": run_job(kennel(model_dir), objects, output, images=count, fields={}),
        "many_per_request": run_job(kennel(model_dir), lines, output, images=count, fields=LINES),
    }
    limits[best] = max(limits[best], limit(best, LIMIT_SECONDS))  # the machine may have sped up meanwhile
    if "flask" in options.servers:
        prepare_environment("flask")
        count = max(1, round(timed["one_per_request"].per_second / 6 * options.seconds))
        timed["flask_one_per_request"] = run_job(
            flask(model_dir, pictures[0].read_bytes()),
            link_objects(pictures, FOLDER / "objects", count),
            output,
            images=count,
            fields={"MaxConcurrentTransforms": FLASK_CONCURRENT},
        )
    return _summary(limits, best, timed)


def _summary(limits: dict[str, float], best: str, timed: dict[str, Any]) -> dict[str, Any]:
    rates = {job: round(one.per_second, 2) for job, one in timed.items()}
    ratios = {f"{job}_to_limit": round(rates[job] / limits[best], 3) for job in timed if "flask" not in job}
    if "flask_one_per_request" in rates:
        peer = rates["flask_one_per_request"]
        ratios["one_per_request_to_flask"] = round(rates["one_per_request"] / peer, 2)
    return {
        "limit_per_second": limits[best],
        "arrangement": best,
        "images_per_second": rates,
        "seconds": {job: round(one.seconds, 1) for job, one in timed.items()},
        "images": {job: one.images for job, one in timed.items()},
        **ratios,
    }


def _page(head: dict[str, str], network: str, result: dict[str, Any]) -> str:
    lines = [
        f"# Batch Transform: {network} int8, {head['today']}",
        "",
        f"`{head['command']}`",
        "",
        head["machine"],
        head["versions"],
        "",
        "Images a second of the whole job: from the request to the last `.out` file, the server's start and",
        "the driver's own work on the same cores included. The limit decodes and infers the same pictures in",
        "processes of its own, without HTTP and files.",
        "",
        "| pictures | job | images | seconds | images/s | of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in result.items():
        limit = one["limit_per_second"]
        lines.append(f"| {name} | limit ({one['arrangement']}) | | | {limit:.1f} | |")
        for job, rate in one["images_per_second"].items():
            spent, images = one["seconds"][job], one["images"][job]
            lines.append(f"| {name} | {job} | {images} | {spent:.1f} | {rate:.1f} | {rate / limit:.1%} |")
    flask_ratios = [
        f"{name}: {one['one_per_request_to_flask']} times the usual Flask and torch server's job."
        for name, one in result.items()
        if "one_per_request_to_flask" in one
    ]
    return "\n".join([*lines, "", *flask_ratios, "", stamp_line(*SOURCES)]) + "\n"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", choices=NETWORKS, default="resnet50")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--servers", nargs="+", choices=("kennel", "flask"), default=["kennel", "flask"])
    parser.add_argument("--seconds", type=float, default=60.0, help="that a job at the limit would take")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
