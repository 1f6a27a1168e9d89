"""docs/telemetry.md and docs/chaos.md name what there is, all of it."""

from __future__ import annotations

import re

from artifact.baseline import SIGNALS
from chaos.scenarios import SCENARIOS
from local.platform import REPOSITORY
from serving.emf import flatten, interval_values
from serving.metrics import Metrics, Model

TELEMETRY = (REPOSITORY / "docs/telemetry.md").read_text()


def test_every_metric_is_in_the_table_and_no_other() -> None:
    metrics = Metrics()
    metrics.describe_model(Model("cnn", "fp32", "openvino", "2", ""), {"blur": (200, 200)})
    metrics.record([], [], [(0,)] * 200)

    names = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in metrics.collect()
    }

    assert set(re.findall(r"^\| `(kennel_\w+)", TELEMETRY, re.MULTILINE)) == names


def test_every_signal_is_explained() -> None:
    assert [signal for signal in SIGNALS if f"`{signal}`" not in TELEMETRY] == []


def test_every_embedded_metric_is_named() -> None:
    metrics = Metrics()
    before = flatten(metrics.collect())
    metrics.record([(stage, 0.1) for stage in ("decode", "queue", "infer", "encode")], [], [])

    names = interval_values(before, flatten(metrics.collect()))

    assert [name for name in names if f"`{name}`" not in TELEMETRY] == []


def test_every_scenario_is_in_the_table_and_no_other() -> None:
    text = (REPOSITORY / "docs/chaos.md").read_text()

    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == list(SCENARIOS)
