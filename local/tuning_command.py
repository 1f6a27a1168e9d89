"""`python -m local tune RECIPE --data D --output O`: search here -> O/best.toml and O/report.html."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.recipe import read_recipe


def add_tuning_options(verb: argparse.ArgumentParser) -> None:
    """Those of `tune`, but for --docker and --image."""
    verb.add_argument("recipe", type=Path, help="recipes/*.toml with [tuning]")
    verb.add_argument("--data", type=Path, required=True, help="folder with train and valid inside")
    verb.add_argument(
        "--output", type=Path, required=True, help="gets best.toml, report.html and trials/; goes on there"
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="fix a hyperparameter in all trials; may be given several times",
    )
    verb.add_argument("--weights", type=Path, help="state dict to initialize the backbone from")
    verb.add_argument("--max-jobs", type=_positive, metavar="N", help="trials in all; default: the recipe's")
    verb.add_argument(
        "--max-parallel-jobs", type=_positive, metavar="N", help="trials at once; default: the recipe's"
    )
    verb.add_argument(
        "--warm-start",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="an earlier search's folder to learn from; may be given several times",
    )


def run_tuning(options: argparse.Namespace, image: str | None) -> int:
    """Search, write the best recipe and the page, and print where they are."""
    from local.tuning_job import run_tuning_job  # Optuna and matplotlib take a second: other verbs do without
    from local.tuning_plan import Plan
    from tuning.leaderboard import open_board
    from tuning.results import read_results
    from tuning.summary import write_summary

    recipe = read_recipe(options.recipe).for_search(options.set)
    assert recipe.tuning
    max_jobs = options.max_jobs or recipe.tuning.max_jobs
    plan = Plan(
        source=options.recipe,
        recipe=recipe,
        data=options.data,
        output=options.output.resolve(),
        weights=options.weights,
        image=image,
        max_jobs=max_jobs,
        max_parallel_jobs=min(options.max_parallel_jobs or recipe.tuning.max_parallel_jobs, max_jobs),
    )
    parents = [read_results(folder) for folder in options.warm_start]
    with open_board() as board:
        results = run_tuning_job(plan, board=board, parents=parents)
    print(json.dumps(write_summary(results, source=options.recipe, output=options.output)))
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
