"""`python -m aws VERB`: SageMaker asked properly. Every verb that changes something takes --dry-run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aws import commands
from aws.errors import AwsError
from aws.operator_policies import POLICIES
from aws.planning import PLANNERS, Asked, offline_site, plan
from aws.site import NO_ACCOUNT, NO_DIGEST
from aws.steps import PlanError
from aws.validation import check_steps
from local.registry import ImageError
from training.hyperparameters import HyperparameterError
from training.recipe import Recipe, read_recipe
from training.recipe_table import RecipeError

VERBS = {
    "bootstrap": "bucket, image repositories and roles, once for an account and region",
    "train": "a training job, to its end",
    "tune": "a hyperparameter tuning job, to its end",
    "transform": "a Batch Transform job over a folder of images in S3, fetched and scored",
    "deploy": "an endpoint, new or moved over to a new version, with its scaling",
    "autoscale": "the number of an endpoint's instances follows its load",
    "function": "a Lambda function that asks the endpoint, with warm copies",
    "explain": "feature attributions by SageMaker Clarify, for accounts that still have it; "
    "docs/explanations.md has what every account can do",
    "ec2": "the same training on a plain machine that ends itself",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after a sentence on stderr; what is meant for programs goes to stdout."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (PlanError, AwsError, RecipeError, HyperparameterError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped watching; what was started on AWS goes on. `python -m aws status`", file=sys.stderr)
        return 130


def _plan(options: argparse.Namespace) -> int:
    recipes = [_read_recipe(path, options) for path in options.recipes]
    if not options.dry_run:
        return commands.run_plans(options.verb, recipes, _asked(options), options)
    plans = {recipe.name: _dry_run(options, recipe) for recipe in recipes}
    print(json.dumps(plans, indent=2))
    return 0


def _read_recipe(path: Path, options: argparse.Namespace) -> Recipe:
    """With its overrides; a tuning job does not search what is overridden."""
    recipe = read_recipe(path)
    is_search = options.verb == "tune" and recipe.tuning
    return recipe.for_search(options.set) if is_search else recipe.with_overrides(options.set)


def _dry_run(options: argparse.Namespace, recipe: Recipe) -> list[dict[str, Any]]:
    """Checked against the service's own model, and printed; neither credentials nor network are needed."""
    site = offline_site(recipe, region=options.region, run=options.run_name)
    steps = plan(options.verb, recipe, site, _asked(options))
    check_steps(steps)
    shown = [step.to_json() for step in steps]
    text = json.dumps(shown)
    if NO_ACCOUNT in text:
        print(
            f"{recipe.name}: {NO_ACCOUNT} stands for the account (AWS_ACCOUNT_ID sets it).", file=sys.stderr
        )
    if NO_DIGEST in text:
        print(
            f"{recipe.name}: images that were not pushed from here have a digest of zeros.", file=sys.stderr
        )
    return shown


def _asked(options: argparse.Namespace) -> Asked:
    labels = tuple(options.labels.read_text().split()) if options.labels else ()
    return Asked(data=options.data, artifact=options.artifact, job=options.job, labels=labels)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aws",
        description="SageMaker asked from outside. A plan is checked before anything is sent; a "
        "second run changes "
        "nothing; a run after an interruption goes on.",
        epilog="Begin with: python -m aws deploy recipes/hurricane-cnn.toml --dry-run",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name in PLANNERS:
        _add_plan(verbs, name)
    _add_others(verbs)
    return parser


def _add_plan(verbs: Any, name: str) -> None:
    verb = verbs.add_parser(name, help=VERBS[name], description=VERBS[name])
    verb.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipes/*.toml")
    verb.add_argument(
        "--dry-run", action="store_true", help="print the checked plan as JSON and send nothing"
    )
    verb.add_argument("--no-wait", action="store_true", help="start jobs without waiting for their end")
    verb.add_argument("--data", default="", metavar="S3", help="default: s3://BUCKET/data/RECIPE/")
    verb.add_argument(
        "--artifact", default="", metavar="A", help="s3:// address or file; default: the recipe's job"
    )
    verb.add_argument("--job", default="", metavar="NAME", help="the training job whose model is meant")
    verb.add_argument(
        "--labels", type=Path, metavar="FILE", help="label names in the artifact's order (explain)"
    )
    verb.add_argument(
        "--run", dest="run_name", default="", metavar="ID", help="the same job once more, as run ID"
    )
    verb.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a hyperparameter"
    )
    if name == "transform":
        verb.add_argument("--estimate", type=float, metavar="IMAGES_PER_SECOND", help=commands.ESTIMATE_HELP)
        verb.add_argument("--output", type=Path, help="folder of the scored results; build/RECIPE/transform")
        verb.add_argument(
            "--precision", default="", help="that was served, to compare with; default: the model's fastest"
        )
    if name == "bootstrap":
        verb.add_argument("--template", action="store_true", help="print a CloudFormation template instead")
    _add_place(verb)
    verb.set_defaults(run=_plan if name not in commands.INSTEAD else commands.INSTEAD[name](_plan), verb=name)


def _add_others(verbs: Any) -> None:
    """Verbs without a plan of their own."""
    table: tuple[tuple[str, str, Callable[[argparse.Namespace], int], tuple[str, ...]], ...] = (
        (
            "upload",
            "a folder of images to the bucket; goes on where it was interrupted",
            commands.upload,
            ("recipe",),
        ),
        ("invoke", "send a picture to the endpoint and print labels", commands.invoke, ("recipe", "picture")),
        ("best", "what a tuning job found: the best recipe, and a page", commands.best, ("recipe",)),
        ("status", "what this recipe has on AWS", commands.status, ("recipe",)),
        ("logs", "the log of a job or an endpoint", commands.logs, ("name",)),
        ("why", "why a job or an endpoint failed, and what to do", commands.why, ("name",)),
        ("costs", "what is running, in dollars per hour and per 1000 predictions", commands.costs, ()),
        ("doctor", "what would go wrong, before anything is created", commands.doctor, ("recipe",)),
        ("destroy", "remove everything a recipe created, and nothing else", commands.destroy, ("recipe",)),
    )
    for name, text, run, positional in table:
        verb = verbs.add_parser(name, help=text, description=text)
        for argument in positional:
            kind: Any = str if argument == "name" else Path
            verb.add_argument(argument, type=kind)
        for flag, settings in commands.FLAGS.get(name, {}).items():
            verb.add_argument(flag, **settings)
        _add_place(verb)
        verb.set_defaults(run=run)
    verb = verbs.add_parser("policy", help="print an IAM policy")
    verb.add_argument("name", choices=sorted(POLICIES))
    verb.add_argument("--recipe", type=Path, help="for the policies that depend on one")
    _add_place(verb)
    verb.set_defaults(run=commands.policy)


def _add_place(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--region", default="", help="default: [aws] region of the recipe, then AWS_REGION")
    verb.add_argument("--profile", help="of the AWS configuration")


if __name__ == "__main__":
    sys.exit(main())
