"""What is running and what it costs: dollars per hour by a dated table, and per 1000 predictions.

An endpoint carries its time to live as a tag; `costs --expired` stops those beyond it.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aws.client import Aws
from aws.endpoint import VARIANT
from aws.inventory import RUNNING_JOBS, Resource, find_endpoints, sagemaker_tags
from aws.site import RECIPE_TAG, TTL_TAG, Site

PRICES = Path(__file__).with_name("prices.toml")
HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that is paid for by the hour. `dollars_per_hour` is None where the table has no price."""

    kind: str
    name: str
    recipe: str
    machines: str
    dollars_per_hour: float | None
    hours: float
    ttl_hours: float | None = None
    predictions_per_hour: float = 0.0

    @property
    def is_expired(self) -> bool:
        """Older than its tag allows."""
        return self.ttl_hours is not None and self.hours > self.ttl_hours

    @property
    def dollars_per_1000(self) -> float | None:
        """At the rate of the last hour."""
        if self.dollars_per_hour is None or not self.predictions_per_hour:
            return None
        return self.dollars_per_hour / self.predictions_per_hour * 1000


@cache
def read_prices() -> dict[str, Any]:
    """The table, with its date and region."""
    return tomllib.loads(PRICES.read_text())


def price(instance_type: str, count: int) -> float | None:
    """Dollars per hour of so many machines."""
    table = read_prices()["sagemaker" if instance_type.startswith("ml.") else "ec2"]
    return table[instance_type] * count if instance_type in table else None


def find_costs(aws: Aws, site: Site) -> list[Line]:
    """Endpoints and running jobs that carry a recipe's tag."""
    lines = [_endpoint_line(aws, endpoint) for endpoint in find_endpoints(aws, site, None)]
    for kind, listing in RUNNING_JOBS.items():
        if kind == "HyperParameterTuningJob":  # its trials are training jobs
            continue
        for page in aws.pages("sagemaker", f"List{kind}s", {"StatusEquals": "InProgress"}):
            lines += [line for job in page[listing] if (line := _job_line(aws, kind, job))]
    return lines


def _endpoint_line(aws: Aws, endpoint: Resource) -> Line:
    shown = endpoint.details
    config = aws.call(
        "sagemaker", "DescribeEndpointConfig", {"EndpointConfigName": shown["EndpointConfigName"]}
    )
    types = {
        variant["VariantName"]: variant.get("InstanceType", "") for variant in config["ProductionVariants"]
    }
    machines: list[str] = []
    dollars: float | None = 0.0
    for variant in shown.get("ProductionVariants", []):
        instance_type = types.get(variant["VariantName"], "")
        count = variant.get("CurrentInstanceCount", 0)
        machines.append(f"{count} x {instance_type}" if instance_type else "serverless")
        cost = price(instance_type, count) if instance_type else 0.0
        dollars = None if cost is None or dollars is None else dollars + cost
    ttl = endpoint.tags.get(TTL_TAG)
    return Line(
        kind="endpoint",
        name=endpoint.name,
        recipe=endpoint.tags[RECIPE_TAG],
        machines=", ".join(machines),
        dollars_per_hour=dollars,
        hours=_hours_since(shown["CreationTime"]),
        ttl_hours=float(ttl) if ttl else None,
        predictions_per_hour=_invocations(aws, endpoint.name),
    )


def _job_line(aws: Aws, kind: str, summary: dict[str, Any]) -> Line | None:
    tags = sagemaker_tags(aws, summary[f"{kind}Arn"])
    if RECIPE_TAG not in tags:
        return None
    name = summary[f"{kind}Name"]
    shown = aws.call("sagemaker", f"Describe{kind}", {f"{kind}Name": name})
    resources = shown.get("ResourceConfig") or shown.get("TransformResources")
    resources = resources or shown["ProcessingResources"]["ClusterConfig"]
    instance_type, count = resources["InstanceType"], resources["InstanceCount"]
    return Line(
        kind=kind,
        name=name,
        recipe=tags[RECIPE_TAG],
        machines=f"{count} x {instance_type}",
        dollars_per_hour=price(instance_type, count),
        hours=_hours_since(shown["CreationTime"]),
    )


def _invocations(aws: Aws, endpoint: str) -> float:
    """Of the last hour."""
    now = datetime.datetime.now(datetime.UTC)
    request = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocations",
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "StartTime": now - datetime.timedelta(hours=1),
        "EndTime": now,
        "Period": HOUR_SECONDS,
        "Statistics": ["Sum"],
    }
    answer = aws.call("cloudwatch", "GetMetricStatistics", request)
    return sum(float(point["Sum"]) for point in answer["Datapoints"])


def _hours_since(moment: datetime.datetime) -> float:
    return (datetime.datetime.now(datetime.UTC) - moment).total_seconds() / HOUR_SECONDS


def format_costs(lines: Sequence[Line]) -> str:
    """A table for people; prices say how old they are."""
    table = read_prices()
    if not lines:
        return "Nothing of Kennel's is running."
    shown = [_format_line(line) for line in lines]
    known = [line.dollars_per_hour for line in lines if line.dollars_per_hour is not None]
    total = f"together {sum(known):.2f} $/h"
    if len(known) < len(lines):
        total += f", without {len(lines) - len(known)} whose type is not in aws/prices.toml"
    source = f"Prices of {table['region']}, written down {table['date']}; check before you rely on them."
    return "\n".join([*shown, total, source])


def _format_line(line: Line) -> str:
    rate = "?" if line.dollars_per_hour is None else f"{line.dollars_per_hour:.3f}"
    per_1000 = "" if line.dollars_per_1000 is None else f"  {line.dollars_per_1000:.3f} $/1000 predictions"
    expired = f"  EXPIRED (ttl {line.ttl_hours:g} h)" if line.is_expired else ""
    return (
        f"{line.kind:<14} {line.name:<32} {line.machines:<22} {rate:>7} $/h  "
        f"{line.hours:.1f} h old{per_1000}{expired}"
    )


def find_expired(lines: Iterable[Line]) -> list[Line]:
    """Endpoints beyond their time to live."""
    return [line for line in lines if line.kind == "endpoint" and line.is_expired]
