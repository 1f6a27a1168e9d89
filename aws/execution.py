"""Sends a plan: leaves what is there and right, changes what differs, makes what is missing, waits.

Every step looks first, so that a second run sends nothing new, and a run after a kill between any two
requests ends where one run would have.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aws.autoscaling import ENDPOINT_DIMENSION, plan_removal
from aws.client import Aws
from aws.convergence import Rule, differs, is_absent
from aws.convergence_rules import RULES
from aws.errors import AwsError
from aws.site import NO_ACCOUNT, NO_DIGEST
from aws.steps import PlanError, Step, Wait
from aws.validation import check_steps
from aws.why import explain_failure

POLL_SECONDS = 15.0
LOG_LINES = 3  # shown at each poll
TAIL_LINES = 200  # kept, for the cause of a failure
SETTLE_SECONDS = 3600.0

Report = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Done:
    """What became of each step, in order: created, changed or kept, and its label."""

    outcomes: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """How many steps ended so."""
        return sum(found == outcome for found, _ in self.outcomes)


def execute(aws: Aws, steps: Sequence[Step], report: Report, *, wait: bool = True) -> Done:
    """Raises PlanError before anything is sent where a request is not valid, AwsError where AWS refuses."""
    check_steps(steps)
    check_real(steps)
    done = Done()
    for number, step in enumerate(steps, 1):
        step = fill_in(step, done.answers)
        outcome, answer = converge(aws, step, report)
        done.answers[step.operation] = answer
        done.outcomes.append((outcome, step.label))
        report(f"[{number}/{len(steps)}] {outcome:<7} {step.label}")
        if wait and step.wait_for:
            wait_for(aws, step.service, step.wait_for, report)
    return done


def check_real(steps: Sequence[Step]) -> None:
    """No stand-in of a dry run leaves this machine."""
    for step in steps:
        text = json.dumps(step.to_json()["request"], default=str)
        if NO_DIGEST in text:
            raise PlanError(
                f"{step.label}: the image was never pushed from here, so its digest is not known; "
                "./build_and_push.sh build push."
            )
        if NO_ACCOUNT in text:
            raise PlanError(f"{step.label}: planned without an account; this is a fault of Kennel's.")


def fill_in(step: Step, answers: Mapping[str, Mapping[str, Any]]) -> Step:
    """The request with what earlier steps answered."""
    if not step.taken:
        return step
    taken = {key: answers[operation][name] for key, (operation, name) in step.taken.items()}
    return dataclasses.replace(step, request={**step.request, **taken})


def converge(aws: Aws, step: Step, report: Report) -> tuple[str, Mapping[str, Any]]:
    """kept, changed or created, and the answer that later steps take from."""
    rule = RULES.get((step.service, step.operation))
    found = settle(aws, step, rule) if rule else None
    if rule is None or found is None:
        return "created", aws.call(step.service, step.operation, step.request)
    request = dict(step.request)
    values = rule.found(found, request)
    if values is None:
        return "created", aws.call(step.service, step.operation, step.request)
    wrong = differs(values, request)
    if not wrong:
        return "kept", rule.answer(found, request)
    answer: Mapping[str, Any] = found
    for change in [*prepare(aws, step), *rule.change(step, found)]:
        report(f"        {change.label}: {', '.join(wrong)} differ")
        answer = aws.call(change.service, change.operation, change.request)
        if change is not step and change.wait_for:
            wait_for(aws, change.service, change.wait_for, report)
        if change.operation == "DeleteEndpoint":
            wait_until_gone(aws, step, rule)
    return "changed", answer


def settle(aws: Aws, step: Step, rule: Rule) -> Mapping[str, Any] | None:
    """What is there, when it no longer moves: an endpoint in motion can be neither updated nor made."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = look(aws, step, rule)
        status = str(found.get("EndpointStatus", "")) if found else ""
        another = found is not None and differs(
            {"EndpointConfigName": found.get("EndpointConfigName")}, step.request
        )
        if (
            not status.endswith("ing")
            or (status == "Creating" and not another)
            or time.monotonic() > deadline
        ):
            return found
        aws.sleep(POLL_SECONDS)


def look(aws: Aws, step: Step, rule: Rule) -> Mapping[str, Any] | None:
    """What is there now; None where nothing is."""
    request = rule.look(dict(step.request))
    try:
        return aws.call(step.service, request.operation, request.request)
    except AwsError as error:
        if is_absent(error):
            return None
        raise


def prepare(aws: Aws, step: Step) -> list[Step]:
    """An endpoint with a scaling policy cannot be updated: the policies go, and the plan makes them again."""
    if step.operation != "CreateEndpoint":
        return []
    prefix = f"endpoint/{step.request['EndpointName']}/variant/"
    request = {"ServiceNamespace": "sagemaker", "ScalableDimension": ENDPOINT_DIMENSION}
    policies: dict[str, list[str]] = {}
    for page in aws.pages("application-autoscaling", "DescribeScalableTargets", request):
        for target in page["ScalableTargets"]:
            if target["ResourceId"].startswith(prefix):
                policies[target["ResourceId"]] = []
    for resource, names in policies.items():
        answer = aws.call(
            "application-autoscaling", "DescribeScalingPolicies", {**request, "ResourceId": resource}
        )
        names += [policy["PolicyName"] for policy in answer["ScalingPolicies"]]
    return [
        removal
        for resource, names in policies.items()
        for removal in plan_removal("sagemaker", resource, ENDPOINT_DIMENSION, names)
    ]


def wait_until_gone(aws: Aws, step: Step, rule: Rule) -> None:
    """A name is free again only when its resource is gone."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while look(aws, step, rule) is not None and time.monotonic() < deadline:
        aws.sleep(POLL_SECONDS)


def wait_for(aws: Aws, service: str, wait: Wait, report: Report) -> Mapping[str, Any]:
    """Polls, reporting changes of state and the log. Raises AwsError with the likely cause of a failure."""
    deadline = time.monotonic() + wait.timeout_seconds
    name = str(next(iter(wait.request.values())))
    shown, tail = "", Tail(group=wait.log_group, name=name)
    while True:
        answer = aws.call(service, wait.operation, wait.request)
        state = read_state(answer, wait.state)
        detail = f"{state} {answer.get('SecondaryStatus', '')}".strip()
        if detail != shown:
            report(f"        {detail}")
            shown = detail
        if state in wait.done:
            return answer
        fresh = tail.read(aws)
        if state in wait.failed:
            reason = str(answer.get(wait.reason) or "no reason given")
            raise AwsError(explain_failure(name, state, reason, list(tail.lines)), code=state)
        for line in fresh[-LOG_LINES:]:
            report(f"        | {line}")
        if time.monotonic() > deadline:
            raise AwsError(
                f"{name} is still {detail} after {wait.timeout_seconds} s; it goes on without us. The same "
                "command waits for it again.",
                code="Timeout",
            )
        aws.sleep(POLL_SECONDS)


def read_state(answer: Mapping[str, Any], path: str) -> str:
    """A dotted path into an answer."""
    value: Any = answer
    for key in path.split("."):
        value = value.get(key, {})
    return str(value)


@dataclass(slots=True, kw_only=True)
class Tail:
    """The newest lines of what belongs to a job or endpoint; each read asks only for what came since."""

    group: str  # empty: there is no log
    name: str
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    since_ms: int = 0

    def read(self, aws: Aws) -> list[str]:
        """The new lines, oldest first."""
        if not self.group:
            return []
        own = {} if self.group.endswith(self.name) else {"logStreamNamePrefix": f"{self.name}/"}
        request = {"logGroupName": self.group, "startTime": self.since_ms, **own}
        fresh: list[str] = []
        try:
            for page in aws.pages("logs", "FilterLogEvents", request):
                for event in page["events"]:
                    fresh.append(str(event["message"]).rstrip())
                    self.since_ms = max(self.since_ms, event["timestamp"] + 1)
        except AwsError as error:
            if not is_absent(error):  # the group is made by the first job that writes into it
                raise
        self.lines.extend(fresh)
        return fresh
