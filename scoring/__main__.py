"""Score a folder of images against a folder of answers: `python -m scoring --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scoring.items import read_outputs
from scoring.report import lead_words, write_report
from scoring.scores import score, write_scores


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when nothing could be scored."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    for path in (options.input, options.output):
        if not path.is_dir():
            parser.error(f"{str(path)!r} is not a folder.")
    if not options.labels.is_file():
        parser.error(
            f"{str(options.labels)!r} is not a file; give one label per line, in the artifact's order."
        )
    labels = options.labels.read_text(encoding="utf-8").splitlines()
    destination = options.destination or options.output
    scores = score(read_outputs(options.input, options.output, labels), labels)
    write_scores(scores, destination / "scores.json")
    write_report(
        scores, destination / "report.html", title=options.input.resolve().name, images_dir=options.input
    )
    print(f"{lead_words(scores)} See {destination / 'report.html'}", file=sys.stderr)
    return 0 if scores["counts"]["scored"] else 1


def build_parser() -> argparse.ArgumentParser:
    """What a newcomer needs to know about the two folders stands in the help text."""
    parser = argparse.ArgumentParser(
        prog="python -m scoring",
        description="Compare the answers with the folders' names; write scores.json and report.html.",
        epilog="example: python -m scoring data/test transformed --labels labels.txt",
    )
    parser.add_argument("input", type=Path, help="images, each in a folder named after its label: dog/1.jpg")
    parser.add_argument(
        "output", type=Path, help="answers, one per image, as Batch Transform writes them: dog/1.jpg.out"
    )
    parser.add_argument(
        "--labels", type=Path, required=True, help="text file, one label per line, in the model's order"
    )
    parser.add_argument(
        "--destination", type=Path, help="where to write both files (default: the answers' folder)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
