"""What the verbs of `python -m aws` do. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aws import costs as cost_lines
from aws.client import Aws
from aws.destroy import empty_bucket, find_shared, remove
from aws.doctor import judge
from aws.doctor_facts import gather
from aws.endpoint import LOG_GROUP as ENDPOINT_LOGS
from aws.errors import AwsError
from aws.execution import Tail, execute
from aws.explain import LOG_GROUP as PROCESSING_LOGS
from aws.function_zip import build_archive
from aws.inventory import ask as ask_aws
from aws.inventory import find_endpoints, find_resources
from aws.operator_policies import POLICIES
from aws.planning import Asked, offline_site, plan, pushed_images
from aws.site import Site
from aws.steps import PlanError, Step
from aws.template import build_template
from aws.training_job import LOG_GROUP as TRAINING_LOGS
from aws.transform_job import LOG_GROUP as TRANSFORM_LOGS
from aws.transform_job import estimate_minutes
from aws.transform_job import settings as transform_settings
from aws.transform_results import fetch_and_score
from aws.tuning_job import build_tuning_job
from aws.tuning_results import find_results
from aws.upload import plan_upload
from aws.upload import upload as send_files
from aws.why import explain_failure
from scoring.comparison import alarm_words
from training.recipe import Recipe, read_recipe

Command = Callable[[argparse.Namespace], int]

ESTIMATE_HELP = (
    "how long the job takes at this measured speed of one instance, and what it costs; starts nothing"
)
FLAGS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "upload": {
        "--data": {"type": Path, "required": True, "help": "folder with train, valid and test"},
    },
    "best": {
        "--output": {"type": Path, "required": True, "help": "gets best.toml, report.html, tuning.json"},
        "--name": {"default": "", "help": "of the tuning job; default: the recipe's own"},
        "--data": {"default": "", "metavar": "S3", "help": "as given to `tune`"},
        "--run": {"dest": "run_name", "default": "", "metavar": "ID", "help": "as given to `tune`"},
        "--set": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help": "as given to `tune`"},
    },
    "invoke": {"--top": {"type": int, "default": 5, "help": "how many labels"}},
    "costs": {"--expired": {"action": "store_true", "help": "stop endpoints beyond their time to live"}},
    "logs": {"--lines": {"type": int, "default": 100, "help": "how many, the newest"}},
    "destroy": {
        "--dry-run": {"action": "store_true", "help": "say what would be removed"},
        "--results": {"action": "store_true", "help": "also what the recipe's jobs left in the bucket"},
        "--data": {"action": "store_true", "help": "also the images in the bucket"},
        "--bootstrap": {"action": "store_true", "help": "also bucket, repositories and roles of all recipes"},
    },
}
# Where a kind of job says what went wrong: kind -> (log group, key of the state).
KINDS = {
    "TrainingJob": TRAINING_LOGS,
    "HyperParameterTuningJob": "",
    "TransformJob": TRANSFORM_LOGS,
    "ProcessingJob": PROCESSING_LOGS,
    "Endpoint": ENDPOINT_LOGS,
}


def say(text: str) -> None:
    """To people."""
    print(text, file=sys.stderr, flush=True)


def connect(options: argparse.Namespace, recipe: Recipe | None = None) -> Aws:
    """A session in the region that was asked for."""
    region = options.region or (recipe.aws.region if recipe else "")
    return Aws(region=region, profile=options.profile)


def find_site(aws: Aws, recipe: Recipe | None, *, run: str = "") -> Site:
    """The account that the credentials belong to."""
    identity = aws.call("sts", "GetCallerIdentity", {})
    return Site(
        account_id=identity["Account"],
        region=aws.region,
        bucket=recipe.aws.bucket if recipe else "",
        images=pushed_images(),
        run=run,
    )


def run_plans(verb: str, recipes: Sequence[Recipe], asked: Asked, options: argparse.Namespace) -> int:
    """Plan and execute for each recipe."""
    for recipe in recipes:
        aws = connect(options, recipe)
        site = find_site(aws, recipe, run=options.run_name)
        if verb == "function":
            build_archive()
        steps = plan(verb, recipe, site, asked)
        try:
            done = execute(aws, steps, say, wait=not options.no_wait)
        except AwsError:
            if verb == "transform":  # a job fails for one bad object, and keeps the others' answers
                with suppress(PlanError, AwsError):
                    _score(aws, recipe, steps, options)
            raise
        summary = {outcome: done.count(outcome) for outcome in ("created", "changed", "kept")}
        scored = _score(aws, recipe, steps, options) if verb == "transform" and not options.no_wait else {}
        print(json.dumps({"recipe": recipe.name, "verb": verb, **summary, **scored}))
    return 0


def _score(aws: Aws, recipe: Recipe, steps: Sequence[Step], options: argparse.Namespace) -> dict[str, Any]:
    """What is told of a transform job's results."""
    output = options.output or Path("build") / recipe.name / "transform"
    scores = fetch_and_score(aws, steps, output, precision=options.precision)
    alarm = alarm_words(scores["comparison"])
    if alarm:
        say(f"ALARM: {alarm}. See {output / 'report.html'}")
    top1 = scores["top1_accuracy"]["value"]
    return {"report": str(output / "report.html"), "top1_accuracy": top1, "alarm": bool(alarm)}


def estimate(options: argparse.Namespace) -> int:
    """`transform --estimate`: minutes and dollars, from the number of objects in the bucket."""
    for path in options.recipes:
        recipe = read_recipe(path)
        aws = connect(options, recipe)
        site = find_site(aws, recipe)
        bucket, _, key = (
            (options.data or site.uri(f"data/{recipe.name}/test")).removeprefix("s3://").partition("/")
        )
        request = {"Bucket": bucket, "Prefix": key.rstrip("/") + "/"}
        images = sum(page.get("KeyCount", 0) for page in aws.pages("s3", "ListObjectsV2", request))
        if not images:
            raise PlanError(f"Nothing lies under s3://{bucket}/{request['Prefix']}; upload it first.")
        minutes = estimate_minutes(recipe, images=images, images_per_second=options.estimate)
        transform = transform_settings(recipe)
        rate = cost_lines.price(transform.instance_type, transform.instance_count)
        dollars = None if rate is None else round(rate * minutes / 60, 3)
        print(
            json.dumps(
                {"recipe": recipe.name, "images": images, "minutes": round(minutes, 1), "dollars": dollars}
            )
        )
    return 0


def template(options: argparse.Namespace) -> int:
    """`bootstrap --template`."""
    print(json.dumps(build_template(), indent=2))
    return 0


# Verbs of which a flag asks for something else than a plan: verb -> wraps the planning command.
INSTEAD: Mapping[str, Callable[[Command], Command]] = {
    "transform": lambda planned: lambda options: (estimate if options.estimate else planned)(options),
    "bootstrap": lambda planned: lambda options: (template if options.template else planned)(options),
}


def upload(options: argparse.Namespace) -> int:
    """Images to data/RECIPE/."""
    recipe = read_recipe(options.recipe)
    aws = connect(options, recipe)
    site = find_site(aws, recipe)
    done = send_files(aws, site.bucket_name, plan_upload(options.data, f"data/{recipe.name}"))
    place = site.uri(f"data/{recipe.name}/")
    print(json.dumps({"data": place, "sent": done.sent, "kept": done.kept, "bytes": done.sent_bytes}))
    return 0


def invoke(options: argparse.Namespace) -> int:
    """A picture's labels."""
    recipe = read_recipe(options.recipe)
    if not options.picture.is_file():
        raise PlanError(f"There is no picture {options.picture}.")
    request = {
        "EndpointName": recipe.name,
        "ContentType": "application/x-image",
        "Accept": f"application/json; top={options.top}",
        "Body": options.picture,
    }
    answer = connect(options, recipe).call("sagemaker-runtime", "InvokeEndpoint", request)
    print(answer["Body"].read().decode())
    return 0


def status(options: argparse.Namespace) -> int:
    """Everything with the recipe's tag."""
    recipe = read_recipe(options.recipe)
    aws = connect(options, recipe)
    found = find_resources(aws, find_site(aws, recipe), recipe)
    print(
        json.dumps([{"kind": item.kind, "name": item.name, "state": item.state} for item in found], indent=2)
    )
    return 0


def logs(options: argparse.Namespace) -> int:
    """The newest lines of whatever has that name."""
    aws = connect(options)
    kind, shown = _find(aws, options.name)
    for line in _log_of(aws, kind, options.name, options.lines):
        print(line)
    say(f"{kind} {options.name} is {shown[f'{kind}Status']}")
    return 0


def why(options: argparse.Namespace) -> int:
    """The likely cause, and what to do."""
    aws = connect(options)
    kind, shown = _find(aws, options.name)
    reason = str(shown.get("FailureReason") or shown.get("ExitMessage") or "")
    state = f"{shown[f'{kind}Status']} {shown.get('SecondaryStatus', '')}".strip()
    if not reason and state.split()[0] in ("Completed", "InService", "InProgress", "Creating", "Updating"):
        print(f"{options.name} is {state}; it did not fail.")
        return 0
    print(explain_failure(options.name, state, reason or state, _log_of(aws, kind, options.name, 200)))
    return 0


def _find(aws: Aws, name: str) -> tuple[str, dict[str, Any]]:
    """The kind of the thing with that name, and what the service says about it."""
    for kind in KINDS:
        shown = ask_aws(aws, "sagemaker", f"Describe{kind}", {f"{kind}Name": name})
        if shown:
            return kind, shown
    raise PlanError(
        f"No job and no endpoint is called {name!r} in {aws.region}; `python -m aws status RECIPE`."
    )


def _log_of(aws: Aws, kind: str, name: str, limit: int) -> list[str]:
    group = KINDS[kind] + (name if kind == "Endpoint" else "")
    tail = Tail(group=group, name=name, lines=deque(maxlen=limit))
    tail.read(aws)
    return list(tail.lines)


def best(options: argparse.Namespace) -> int:
    """What a tuning job found: OUTPUT/best.toml, report.html and tuning.json."""
    from tuning.summary import write_summary  # it draws: the other verbs do without

    recipe = read_recipe(options.recipe).for_search(options.set)
    aws = connect(options, recipe)
    site = find_site(aws, recipe, run=options.run_name)
    name = options.name or build_tuning_job(recipe, site, data=options.data)["HyperParameterTuningJobName"]
    results = find_results(aws, name)
    print(json.dumps(write_summary(results, source=options.recipe, output=options.output)))
    return 0


def costs(options: argparse.Namespace) -> int:
    """What is running; with --expired what is beyond its time is stopped."""
    aws = connect(options)
    site = find_site(aws, None)
    lines = cost_lines.find_costs(aws, site)
    print(cost_lines.format_costs(lines))
    if options.expired:
        expired = {line.name for line in cost_lines.find_expired(lines)}
        remove(aws, [item for item in find_endpoints(aws, site, None) if item.name in expired], say)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """1 where something would be refused."""
    recipe = read_recipe(options.recipe)
    aws = connect(options, recipe)
    findings = judge(recipe, gather(aws, find_site(aws, recipe), recipe))
    for finding in findings:
        print(f"{'REFUSED' if finding.refuses else 'note'} ({finding.about}): {finding.message}")
    if not findings:
        print("Nothing found that would go wrong.")
    return int(any(finding.refuses for finding in findings))


def destroy(options: argparse.Namespace) -> int:
    """What carries the recipe's tag."""
    recipe = read_recipe(options.recipe)
    aws = connect(options, recipe)
    site = find_site(aws, recipe)
    found = find_resources(aws, site, recipe)
    if options.bootstrap:
        found += list(find_shared(aws, site))
    if options.dry_run:
        print(json.dumps([{"kind": item.kind, "name": item.name} for item in found], indent=2))
        return 0
    patterns = [""] if options.bootstrap else own_objects(recipe, results=options.results, data=options.data)
    if patterns and (not options.bootstrap or any(item.kind == "bucket" for item in found)):
        empty_bucket(aws, site, patterns, say)
    print(json.dumps({"removed": remove(aws, found, say)}))
    return 0


def own_objects(recipe: Recipe, *, results: bool, data: bool) -> list[str]:
    """Patterns of the keys that a recipe's jobs leave in the bucket, or its images.

    A job's name is the recipe's, eight digits, and for a trial its number: dogs-1a2b3c4d is not of dogs-big.
    """
    job = f"{re.escape(recipe.name)}-[0-9a-f]{{8}}"
    name = re.escape(recipe.name)
    jobs = [f"{folder}/{job}(-[^/]*)?/" for folder in ("jobs", "checkpoints", "transforms", "explain")]
    own = [f"{folder}/{name}/" for folder in ("models", "capture", "async")]
    return (jobs + own if results else []) + ([f"data/{name}/"] if data else [])


def policy(options: argparse.Namespace) -> int:
    """An IAM policy as JSON, for the account of AWS_ACCOUNT_ID."""
    recipe = read_recipe(options.recipe) if options.recipe else None
    site = offline_site(recipe, region=options.region)
    print(json.dumps(POLICIES[options.name](site, recipe), indent=2))
    return 0
