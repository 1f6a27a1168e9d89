"""A tuning job's descriptions, as the service's own model has them, become the results of a search."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aws.__main__ import main
from aws.tuning_job import build_tuning_job
from tests.unit.aws.sites import REGION, REPOSITORY, make_site
from training.metrics import metric_line
from training.recipe import read_recipe
from tuning.results import Results, read_results

RECIPE = REPOSITORY / "recipes" / "dogs-resnet50.toml"
NAME = "dogs-resnet50-1a2b3c4d"
ARN = f"arn:aws:sagemaker:{REGION}:123456789012"
START = 1_790_000_000
SCORES: list[tuple[str, float | None]] = [
    *(("Completed", 0.81), ("Stopped", 0.42), ("Failed", None)),
    *(("Completed", 0.87), ("Completed", None)),
]


def answers() -> dict[str, Any]:
    """Operation -> answer, in the service's JSON: times as numbers."""
    recipe = read_recipe(RECIPE)
    request = build_tuning_job(recipe, make_site())
    job = {
        "HyperParameterTuningJobName": NAME,
        "HyperParameterTuningJobArn": f"{ARN}:hyper-parameter-tuning-job/{NAME}",
        "HyperParameterTuningJobConfig": request["HyperParameterTuningJobConfig"],
        "TrainingJobDefinition": request["TrainingJobDefinition"],
        "HyperParameterTuningJobStatus": "Completed",
        "CreationTime": START,
        "HyperParameterTuningEndTime": START + 1800,
        "TrainingJobStatusCounters": {},
        "ObjectiveStatusCounters": {},
    }
    summaries = [summary(number, *found) for number, found in enumerate(SCORES, start=1)]
    return {
        "DescribeHyperParameterTuningJob": job,
        "ListTrainingJobsForHyperParameterTuningJob": {"TrainingJobSummaries": summaries},
    }


def summary(number: int, status: str, score: float | None) -> dict[str, Any]:
    """HyperParameterTrainingJobSummary."""
    shown: dict[str, Any] = {
        "TrainingJobName": f"{NAME}-{number:03d}-0123abcd",
        "TrainingJobArn": f"{ARN}:training-job/{NAME}-{number}",
        "CreationTime": START + number,
        "TrainingStartTime": START + 60,
        "TrainingEndTime": START + 360,
        "TrainingJobStatus": status,
        "TunedHyperParameters": {
            "learning_rate": f"{0.01 * number}",
            "batch_size": '"64"',
            "epochs": "3",
            "_tuning_objective_metric": "best_validation_top1_accuracy",
        },
    }
    if status == "Failed":
        shown["FailureReason"] = "AlgorithmError: The training loss is nan"
    if score is not None:
        shown["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": "Maximize",
            "MetricName": "best_validation_top1_accuracy",
            "Value": score,
        }
    return shown


def training_job(name: str) -> dict[str, Any]:
    """DescribeTrainingJob: of five minutes three are billed, as on spot machines."""
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"{ARN}:training-job/{name}",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"VolumeSizeInGB": 1},
        "StoppingCondition": {},
        "CreationTime": START,
        "BillableTimeInSeconds": 180,
    }


def log_events(prefix: str) -> list[dict[str, Any]]:
    """What the trainer printed, a line an event."""
    number = int(prefix.removeprefix(NAME).split("-")[1])
    lines = [
        metric_line(name, value + number / 100)
        for value in (0.3, 0.5, 0.7)
        for name in ("train_loss", "validation_top1_accuracy", "best_validation_top1_accuracy")
    ]
    return [
        {"message": line, "timestamp": START * 1000 + place, "logStreamName": f"{prefix}algo-1-1"}
        for place, line in enumerate(lines)
    ]


class _Service(BaseHTTPRequestHandler):
    """SageMaker and CloudWatch Logs, as far as they are asked here: moto lists no tuning job's trials."""

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if operation == "DescribeTrainingJob":
            answer: dict[str, Any] = training_job(request["TrainingJobName"])
        elif operation == "FilterLogEvents":
            answer = {"events": log_events(request["logStreamNamePrefix"])}
        else:
            answer = answers()[operation]
            assert request["HyperParameterTuningJobName"] == NAME
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every AWS call goes to the answers above."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def found(service: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Results]:
    """The folder that `python -m aws best` wrote, and the results in it."""
    monkeypatch.setattr("aws.commands.find_site", lambda aws, recipe, run="": make_site())
    assert main(["best", str(RECIPE), "--name", NAME, "--output", str(tmp_path)]) == 0
    return tmp_path, read_results(tmp_path)


def test_trials_are_scored_and_failed_as_the_service_did(found: tuple[Path, Results]) -> None:
    _, results = found

    states = [(trial.state, trial.objective) for trial in results.trials]
    assert states == [
        *(("completed", 0.81), ("stopped", 0.42), ("failed", None)),
        *(("completed", 0.87), ("failed", None)),
    ]
    assert [trial.reason for trial in results.trials[1:3]] == [
        "stopped early by SageMaker",
        "AlgorithmError: The training loss is nan",
    ]
    assert "read no objective" in results.trials[4].reason
    assert results.best and results.best.parameters == {"learning_rate": 0.04, "batch_size": 64, "epochs": 3}


def test_curves_come_from_the_logs_and_costs_from_what_is_billed(found: tuple[Path, Results]) -> None:
    _, results = found

    curve = [row["validation_top1_accuracy"] for row in results.trials[3].curve]
    assert curve == pytest.approx([0.34, 0.54, 0.74])
    assert results.seconds == 1800 and {trial.seconds for trial in results.trials} == {180.0}
    assert results.dollars_per_hour and results.dollars(results.trials[0]) == pytest.approx(
        results.dollars_per_hour / 20
    )


def test_search_space_is_read_back_as_the_recipe_has_it(found: tuple[Path, Results]) -> None:
    _, results = found

    tuning = read_recipe(RECIPE).tuning
    assert tuning
    assert results.ranges["learning_rate"] == {
        "type": "continuous",
        "low": 0.001,
        "high": 0.1,
        "scale": "logarithmic",
    }
    assert results.ranges["batch_size"] == {"type": "categorical", "values": [32, 64, 128, 256]}
    assert results.ranges["epochs"] == {"type": "integer", "low": 1, "high": 4, "scale": "linear"}
    assert (results.max_jobs, results.max_parallel_jobs) == (tuning.max_jobs, tuning.max_parallel_jobs)


def test_best_recipe_trains_what_the_service_found_best(found: tuple[Path, Results]) -> None:
    folder, _ = found

    best, before = read_recipe(folder / "best.toml"), read_recipe(RECIPE)

    expected = before.with_overrides(["learning_rate=0.04", "batch_size=64", "epochs=3"])
    assert best == expected
    assert "<svg" in (folder / "report.html").read_text()


def test_running_job_is_shown_as_far_as_it_is() -> None:
    from aws.tuning_results import build_results

    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    job = {**answers()["DescribeHyperParameterTuningJob"], "CreationTime": moment}
    del job["HyperParameterTuningEndTime"]
    shown = {**summary(1, "InProgress", None), "CreationTime": moment, "TrainingStartTime": moment}
    del shown["TrainingEndTime"]

    results = build_results(job, [shown], [{}], [""])

    assert results.best is None and results.trials[0].state == "running"
    assert 290 < results.trials[0].seconds < 400 and 290 < results.seconds < 400
