"""`python -m training.explain ARTIFACT IMAGES` shows where a network looks, and whether that is true."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from artifact.bundle import Bundle, BundleError

logger = logging.getLogger("training.explain")

METHOD_NAMES = ("cam", "integrated_gradients", "shap", "occlusion")  # METHODS', without waiting for torch
DEFAULT_LIMIT = 20
ERROR_CODE = 2  # as argparse's


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one sentence on what is wrong."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    from training.doctor.mislabelled import open_artifact  # torch takes seconds: a typo is answered before
    from training.explain.network import ExplainError

    try:
        if not options.artifact.exists():
            raise ExplainError(f"{options.artifact} does not exist; give a model.tar.gz or its folder.")
        with open_artifact(options.artifact) as bundle:
            _explain(bundle, options)
    except (ExplainError, BundleError, OSError) as error:
        logger.error("%s", error)
        return ERROR_CODE
    return 0


def _explain(bundle: Bundle, options: argparse.Namespace) -> None:
    from training.explain.explaining import explain_folder
    from training.explain.report import JSON_NAME, PAGE_NAME, lead_words, write_json, write_page

    explanations = explain_folder(
        bundle, options.images, methods=options.methods, limit=options.limit, seed=options.seed
    )
    facts = {
        "artifact": f"{options.artifact} ({bundle.manifest.architecture} of {bundle.manifest.created})",
        "pictures": f"{len(explanations.pictures)} from {options.images}",
        "labels": str(len(bundle.manifest.labels)),
        "seed": str(options.seed),
    }
    write_json(explanations, options.output / JSON_NAME, facts=facts)
    title = f"Explanations: {options.images.resolve().name}"
    write_page(explanations, options.output / PAGE_NAME, title=title, facts=facts)
    print(lead_words(explanations))
    print(f"With pictures: {options.output / PAGE_NAME}   For programs: {options.output / JSON_NAME}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.explain",
        description="Mark what in each picture speaks for the predicted label, by several methods, and "
        "measure by hiding it whether that is true.",
        epilog="Exit code 0, or 2 where it could not be explained.",
    )
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="model.tar.gz, or its folder")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of pictures, or of class folders")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/explain"),
        help="gets explanations.html and explanations.json (build/explain)",
    )
    parser.add_argument(
        "--methods",
        type=_parse_methods,
        default=METHOD_NAMES,
        metavar="NAME,NAME",
        help=f"of {', '.join(METHOD_NAMES)} (all)",
    )
    parser.add_argument(
        "--limit",
        type=_parse_limit,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"explain N pictures, from all folders in turn ({DEFAULT_LIMIT})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random draws (0)")
    return parser


def _parse_methods(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in METHOD_NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no method; {', '.join(METHOD_NAMES)} are")
    return names


def _parse_limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pictures, 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
