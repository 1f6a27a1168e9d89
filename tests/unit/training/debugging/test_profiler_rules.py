"""Every profiler rule fires on its synthetic fault and is silent on the near twin; GPU rules need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.verdicts import check_verdicts
from training.debugging.rules import PROFILER_RULES, RULES, RuleSettings, evaluate
from training.debugging.series import EVAL, TRAIN, Fact, Series, Step, System

GPU_RULES = (
    "LowGPUUtilization", "BatchSize", "CPUBottleneck", "IOBottleneck", "GPUMemoryIncrease", "LoadBalancing",
)  # fmt: skip
SAMPLES = 1200  # more than the patience of any rule, by half a second each
START = 1_000_000.0


def series_of(
    figures: Callable[[int], dict[str, float]] | None = None,
    *,
    seconds: Callable[[int], dict[str, float]] = lambda step: {},
    gap_after: dict[int, float] | None = None,
    initialization: float = 5.0,
) -> Series:
    """Ten minutes of half-second steps, sampled twice a second."""
    series = Series(facts=[Fact(time=START, name="initialization_seconds", value=initialization)])
    now = START
    for step in range(SAMPLES):
        timed = {"data": 0.01, "forward": 0.2, "backward": 0.25, "optimizer": 0.04} | seconds(step)
        timed |= {"total": sum(timed.values())}
        now += 0.5 + (gap_after or {}).get(step - 1, 0.0)
        series.add(
            Step(step=step, epoch=0, mode=TRAIN, time=now, loss=1.0, accuracy=0.5, images=8, seconds=timed)
        )
        series.add(System(time=now, values={"cpu_percent": 40.0} | (figures(step) if figures else {})))
    series.add(Fact(time=now, name="ended", value="closed"))
    return series


def gpu(percent: float, *, memory: float = 50.0, cpu: float = 40.0, wait: float = 0.0) -> dict[str, float]:
    """One sample of a machine with a GPU."""
    return {
        "gpu0_percent": percent,
        "gpu0_memory_percent": memory,
        "cpu_percent": cpu,
        "iowait_percent": wait,
    }


BUSY = series_of(lambda step: gpu(95.0, memory=80.0))
TABLE = [
    pytest.param("LowGPUUtilization", {}, series_of(lambda step: gpu(60.0)), BUSY, id="low-gpu"),
    pytest.param(
        "LowGPUUtilization",
        {"patience": "100", "window": "200"},
        series_of(lambda step: gpu(100.0 if step % 4 else 5.0)),
        series_of(lambda step: gpu(100.0 if step % 40 else 5.0)),  # now and then is no swinging
        id="swinging-gpu",
    ),
    pytest.param(
        "BatchSize",
        {},
        series_of(lambda step: gpu(50.0, memory=20.0)),
        series_of(lambda step: gpu(50.0, memory=75.0)),
        id="tiny-batch",
    ),
    pytest.param(
        "CPUBottleneck",
        {},
        series_of(lambda step: gpu(5.0 if step % 5 else 90.0, cpu=97.0)),
        series_of(lambda step: gpu(5.0 if step % 5 == 0 else 90.0, cpu=97.0)),
        id="cpu-bottleneck",
    ),
    pytest.param(
        "IOBottleneck",
        {},
        series_of(lambda step: gpu(30.0, wait=80.0)),
        series_of(lambda step: gpu(30.0, wait=40.0)),
        id="io-bottleneck",
    ),
    pytest.param(
        "GPUMemoryIncrease",
        {},
        series_of(lambda step: gpu(90.0, memory=20 + step / 30)),
        series_of(lambda step: gpu(90.0, memory=20 + step / 100)),
        id="leaking-memory",
    ),
    pytest.param(
        "LoadBalancing",
        {},
        series_of(lambda step: gpu(90.0) | {"gpu1_percent": 30.0}),
        series_of(lambda step: gpu(90.0) | {"gpu1_percent": 60.0}),
        id="idle-second-gpu",
    ),
    pytest.param(
        "MaxInitializationTime",
        {"threshold": "2"},
        series_of(initialization=130.0),
        series_of(initialization=110.0),
        id="late-first-step",
    ),
    pytest.param(
        "StepOutlier",
        {},
        series_of(seconds=lambda step: {"data": 9.0 if step % 80 == 70 else 0.01}),
        series_of(seconds=lambda step: {"data": 9.0 if step % 200 == 70 else 0.01}),
        id="slow-steps",
    ),
    pytest.param(
        "Dataloader",
        {},
        series_of(seconds=lambda step: {"data": 0.3}),
        series_of(seconds=lambda step: {"data": 0.05}),
        id="waiting-loader",
    ),
    pytest.param(
        "DataWait",
        {},
        series_of(seconds=lambda step: {"data": 0.2}),
        series_of(seconds=lambda step: {"data": 0.08}),
        id="data-wait",
    ),
    pytest.param(
        "StalledTrainingRule",
        {"threshold": "600"},
        series_of(gap_after={500: 700.0}),
        series_of(gap_after={500: 500.0}),
        id="stalled",
    ),
    pytest.param(
        "ProfilerReport",
        {"DataWait_threshold": "10", "BatchSize_window": "200"},
        series_of(seconds=lambda step: {"data": 0.08}),
        series_of(seconds=lambda step: {"data": 0.02}),
        id="report",
    ),
]


@pytest.mark.parametrize(("rule", "parameters", "ill", "well"), TABLE)
def test_rule_fires_on_its_fault_and_not_on_the_twin(
    rule: str, parameters: dict[str, str], ill: Series, well: Series
) -> None:
    settings = [RuleSettings(name=rule, parameters=parameters)]
    (fired,), (silent,) = evaluate(ill, settings), evaluate(well, settings)

    assert fired.fired, fired.summary
    assert fired.advice and any(char.isdigit() for char in fired.summary)
    assert silent.status == "NoIssuesFound", silent.summary


def test_words_and_evidence_are_those_on_file() -> None:
    verdicts = {}
    for row in TABLE:
        rule, parameters, *pair = cast(tuple[str, dict[str, str], Series, Series], row.values)
        for kind, series in zip(("ill", "well"), pair, strict=True):
            (verdict,) = evaluate(series, [RuleSettings(name=rule, parameters=parameters)])
            verdicts[f"{row.id}, {kind}"] = verdict
    for rule in RULES:
        (verdicts[f"{rule} of nothing"],) = evaluate(Series(), [RuleSettings(name=rule)])
    for rule in PROFILER_RULES:
        (verdicts[f"{rule} of a busy machine"],) = evaluate(BUSY, [RuleSettings(name=rule)])

    check_verdicts(verdicts, Path(__file__).parent / "profiler_verdicts.json", with_numbers=True)


@pytest.mark.parametrize("rule", GPU_RULES)
def test_gpu_rule_without_a_gpu_says_so(rule: str) -> None:
    (verdict,) = evaluate(series_of(), [RuleSettings(name=rule)])

    assert verdict.status == "NotApplicable"
    assert "no GPU" in verdict.summary


@pytest.mark.parametrize("rule", ["OverallSystemUsage", "OverallFrameworkMetrics"])
def test_reporting_rule_reports_and_never_fires(rule: str) -> None:
    (verdict,) = evaluate(BUSY, [RuleSettings(name=rule)])

    assert verdict.status == "NoIssuesFound"
    assert "%" in verdict.summary and len(verdict.evidence) > 1


def test_every_profiler_rule_has_a_row() -> None:
    tested = {row.values[0] for row in TABLE} | {"OverallSystemUsage", "OverallFrameworkMetrics"}

    assert set(PROFILER_RULES) <= tested


def test_stalled_training_is_seen_while_it_stands_still() -> None:
    series = series_of()
    series.facts.clear()  # it has not ended
    last = series.steps[-1].time
    rule = [RuleSettings(name="StalledTrainingRule", parameters={"threshold": "60"})]

    assert not evaluate(series, rule)[0].fired
    series.add(System(time=last + 61, values={"cpu_percent": 1.0}))

    assert evaluate(series, rule)[0].step == SAMPLES - 1


def test_gap_as_long_as_the_threshold_is_no_stall() -> None:
    rule = [RuleSettings(name="StalledTrainingRule", parameters={"threshold": "500"})]

    (at_it,) = evaluate(series_of(gap_after={500: 499.5}), rule)
    (beyond,) = evaluate(series_of(gap_after={300: 499.5, 500: 500.0}), rule)

    assert at_it.summary == "The longest time without a step was 500 s."
    assert beyond.fired and beyond.step == 500


def test_data_wait_of_pixels_that_do_not_fit_says_which_size_would() -> None:
    series = series_of(seconds=lambda step: {"data": 0.34})
    sizes = {"pixels_bytes": 8e9, "memory_budget_bytes": 2e9, "image_size": 224}
    series.add(Fact(time=START, name="job", value={"pixels_in": "file", **sizes}))

    (verdict,) = evaluate(series, [RuleSettings(name="DataWait")])

    assert "(8.0 GB) do not fit half the free memory (2.0 GB)" in verdict.advice
    assert "set image_size=106 and resize=0 (now image_size=224)" in verdict.advice
    assert "an instance with 12.0 GB more memory" in verdict.advice
    assert verdict.advice.endswith("Without the wait a step is 1.7 times as fast.")


def test_data_wait_says_its_share_of_the_step() -> None:
    (verdict,) = evaluate(series_of(seconds=lambda step: {"data": 0.34}), [RuleSettings(name="DataWait")])

    assert verdict.summary.startswith("Data wait is 41 % of the step: 340 of 830 ms")
    assert "1.7 times as fast" in verdict.advice


def test_steps_that_a_resumed_job_did_again_count_once() -> None:
    series = series_of()
    passes = [
        Step(step=s, epoch=0, mode=EVAL, time=START, loss=loss, accuracy=0.5, images=8)
        for s, loss in ((400, 1.0), (800, 1.0), (800, 2.0))
    ]
    for step in passes:
        series.add(step)

    (verdict,) = evaluate(series, [RuleSettings(name="Overfit")])

    assert verdict.evidence["validation loss"] == [1.0, 2.0]
