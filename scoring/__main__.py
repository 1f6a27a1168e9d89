"""Score the answers of a transform job, real or local: `python -m scoring --help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from artifact.bundle import Bundle, BundleError, open_bundle, unpack_artifact
from scoring.comparison import Record, alarm_words, read_record
from scoring.items import Item
from scoring.job import score_job
from scoring.joining import read_label_names, read_truth
from scoring.words import lead_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when nothing could be scored or the alarm is raised, 2 where it could not begin."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not options.output.exists():
        parser.error(f"{str(options.output)!r} does not exist; give the folder of .out files.")
    try:
        return _score(options)
    except (BundleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _score(options: argparse.Namespace) -> int:
    destination = options.destination or (
        options.output if options.output.is_dir() else options.output.parent
    )
    with tempfile.TemporaryDirectory(prefix="kennel-model-") as scratch:
        bundle = _open(options.artifact, Path(scratch)) if options.artifact else None
        labels = _label_names(options, bundle)
        truth = read_truth(options.labels, labels)
        scores = score_job(
            options.output,
            truth,
            labels,
            destination=destination,
            title=options.labels.resolve().stem,
            record=_record(options, bundle),
            images_dir=options.images or truth.images_dir,
            watch=lambda items: _watch(items, len(truth.labels)),
        )
    print(f"{lead_words(scores)} See {destination / 'report.html'}", file=sys.stderr)
    words = alarm_words(scores["comparison"]) if "comparison" in scores else ""
    if words:
        print(f"ALARM: {words}.", file=sys.stderr)
    return 1 if words or not scores["counts"]["scored"] else 0


def _watch(items: Iterable[Item], count: int) -> Iterator[Item]:
    """A bar on a terminal, nothing elsewhere."""
    yield from tqdm(items, total=count, desc="score", unit="image", leave=False, disable=None)


def _open(artifact: Path, scratch: Path) -> Bundle:
    if artifact.is_dir():
        return open_bundle(artifact)
    unpack_artifact(artifact, scratch)
    return open_bundle(scratch)


def _label_names(options: argparse.Namespace, bundle: Bundle | None) -> Sequence[str]:
    """In the order of the model's answers."""
    if bundle is not None:
        return bundle.manifest.labels
    if options.names is not None:
        return [line for line in options.names.read_text(encoding="utf-8").splitlines() if line]
    labels = read_label_names(options.labels)
    print(
        f"The order of the {len(labels)} labels is taken to be that of their names; --artifact or --names "
        "says it for certain.",
        file=sys.stderr,
    )
    return labels


def _record(options: argparse.Namespace, bundle: Bundle | None) -> Record | None:
    """Of the precision that answered: the one stated, or the only one there is."""
    if bundle is None:
        return None
    offered = list(bundle.manifest.precisions)
    precision = options.precision or (offered[0] if len(offered) == 1 else None)
    if precision is None:
        raise ValueError(
            f"The artifact has {' and '.join(offered)}; say with --precision which one answered (the server "
            "names it on /ping, a local job in transform.json)."
        )
    if precision not in offered:
        raise ValueError(f"--precision {precision!r} is not in the artifact; it has {' and '.join(offered)}.")
    return read_record(bundle, precision)


def build_parser() -> argparse.ArgumentParser:
    """What a newcomer needs to know about the files stands in the help text."""
    parser = argparse.ArgumentParser(
        prog="python -m scoring",
        description="Compare answers with labels, and with what the trainer recorded; write report.html, "
        "scores.json, items.csv and per_class.csv.",
        epilog="example: python -m scoring transformed --labels data/test --artifact model.tar.gz",
    )
    parser.add_argument(
        "output",
        type=Path,
        help="folder of answers as Batch Transform writes them, dog/1.jpg.out, or one file of JSON lines",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="folder with an image folder for each label, or a CSV with path and label",
    )
    parser.add_argument(
        "--artifact", type=Path, help="model.tar.gz or its folder: label order, trainer's record"
    )
    parser.add_argument("--precision", help="which of the artifact's precisions answered, such as int8")
    parser.add_argument(
        "--names", type=Path, help="without an artifact: one label per line, in the model's order"
    )
    parser.add_argument(
        "--images", type=Path, help="folder of the images, for the pictures (default: --labels)"
    )
    parser.add_argument("--destination", type=Path, help="where to write (default: beside the answers)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
