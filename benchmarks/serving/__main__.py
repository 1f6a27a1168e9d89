"""Kennel and its peers on the same images, networks and machine, in one run.

    python -m benchmarks.serving                     everything: about 15 minutes once all is made
    python -m benchmarks.serving --quick             every server on one network, a second each: some minutes
    python -m benchmarks.serving --servers kennel flask --networks resnet50 --images typical --seconds 5
    python -m benchmarks.serving --cpus 1            Kennel and its limit in a container with that quota
    python -m benchmarks.serving --compare FILE      this run's ratios against an earlier run's JSON
    python -m benchmarks.serving --compare A B       two earlier runs, nothing is measured

Environments, artifacts and pictures are made under build/bench at the first run and kept. Run it alone on
the machine. Writes benchmarks/results/serving_<cpu>_<yyyymm>.md, .svg and, under build/bench, results.json;
the last line on stdout is that JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.serving.artifacts import NETWORKS, ArtifactError, prepare_artifact
from benchmarks.serving.ceiling import LimitError
from benchmarks.serving.load import LoadError
from benchmarks.serving.machine import describe_machine, describe_versions, file_name
from benchmarks.serving.pictures import SIZES, TYPICAL, prepare_pictures
from benchmarks.serving.places import RESULTS, WORK
from benchmarks.serving.plot import draw_throughput
from benchmarks.serving.quota import run_with_quota
from benchmarks.serving.report import Head, quota_page, session_page
from benchmarks.serving.servers import SERVERS, ServerError
from benchmarks.serving.session import Plan, Session, install_peers, num_steps, run_network
from benchmarks.serving.summary import compare, session_json
from local.platform import LocalError

QUICK = {"networks": ["resnet18"], "images": [TYPICAL], "seconds": 1.0}


def main() -> None:
    """Exit code 1 where something could not be measured at all, or --compare found a difference."""
    options = parse_options(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if len(options.compare) == 2:
        sys.exit(print_comparison(*(read_result(path) for path in options.compare)))
    try:
        result = run_quota(options) if options.cpus else run_all(options)
    except (ArtifactError, LimitError, LoadError, LocalError, ServerError, FileNotFoundError) as error:
        sys.exit(f"The benchmark cannot go on: {error}")
    differs = print_comparison(result, read_result(options.compare[0])) if options.compare else 0
    (WORK / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    sys.exit(differs)


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The command line; --quick only changes defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--images", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=4.0, help="of one slice of load")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpus", help="quota of the container, as docker run takes it")
    parser.add_argument("--image", default="kennel/serving-cpu:local", help="with --cpus")
    parser.add_argument("--compare", nargs="+", type=Path, default=[], metavar="JSON")
    parser.add_argument(
        "--results", type=Path, help=f"folder of the page and the plot; default {RESULTS.name}/"
    )
    if "--quick" in arguments:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    if len(options.compare) > 2:
        parser.error("--compare takes one or two files")
    if TYPICAL not in options.images:
        parser.error(f"--images needs {TYPICAL}: the limit and the ratios are measured on it")
    # A quick run proves that everything works; its numbers do not belong beside the recorded ones.
    options.results = options.results or (WORK / "quick" if options.quick else RESULTS)
    return options


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Every server; writes page and plot."""
    plan = Plan(
        servers=tuple(options.servers),
        networks=tuple(options.networks),
        pictures=tuple(sorted(options.images, key=lambda name: name != TYPICAL)),
        seconds=options.seconds,
    )
    head = read_head(plan.peers)
    pictures = prepare_pictures()
    for network in plan.networks:
        prepare_artifact(network)
    with tqdm(total=num_steps(plan), unit="step", file=sys.stderr) as bar:

        def tell(step: str) -> None:
            bar.set_postfix_str(step)
            bar.update()

        session = Session(plan=plan, pictures=pictures, tell=tell)
        install_peers(session)
        bar.unpause()  # the time left is that of measuring
        for network in plan.networks:
            run_network(session, network)
    result = session_json(session.networks, session.cells, session.pings, session.failures)
    write_results(options.results, head, session_page(head, session, result), plot=session)
    return result


def run_quota(options: argparse.Namespace) -> dict[str, Any]:
    """Kennel and its limit under a quota; writes a page."""
    head = read_head(())
    pictures = prepare_pictures()
    result = run_with_quota(
        options.networks, pictures[TYPICAL], image=options.image, cpus=options.cpus, seconds=options.seconds
    )
    write_results(options.results, head, quota_page(head, result), suffix=f"_{options.cpus}cpu")
    return result


def read_head(peers: tuple[str, ...]) -> Head:
    """Taken before the load, whose own would be seen in the load averages."""
    return Head(
        today=datetime.now(UTC).date().isoformat(),
        command="python -m benchmarks.serving " + " ".join(sys.argv[1:]),
        machine=describe_machine(),
        versions=describe_versions(peers),
    )


def write_results(
    folder: Path, head: Head, page: str, *, suffix: str = "", plot: Session | None = None
) -> None:
    """The page and beside it the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(head.today)}{suffix}.md"
    path.write_text(page)
    if plot is not None:
        draw_throughput(plot.networks, path.with_suffix(".svg"))
    logging.info("wrote %s", path)


def read_result(path: Path) -> dict[str, Any]:
    """A run's JSON: a file with the object, or a log whose last line it is."""
    text = path.read_text().strip()
    result: dict[str, Any] = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
    return result


def print_comparison(mine: dict[str, Any], other: dict[str, Any]) -> int:
    """On stderr, since stdout ends in the JSON; 1 where a ratio differs or there is none to compare."""
    lines = compare(mine, other)
    print("\n".join(lines) or "The runs have no ratio in common.", file=sys.stderr)
    return 0 if lines and all(line.endswith("ok") for line in lines) else 1


if __name__ == "__main__":
    main()
