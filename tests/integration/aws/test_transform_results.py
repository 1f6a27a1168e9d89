"""A transform job's outputs come back from the bucket and are scored like a local job's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws.__main__ import main
from aws.client import Aws
from aws.steps import PlanError
from aws.transform_results import fetch_folder
from local.transform_job import TransformResult, run_transform_job
from tests.conftest import TrainedShapes
from tests.integration.aws.moto_service import Service
from tests.integration.aws.test_commands import recipe  # noqa: F401  # a fixture
from tests.unit.aws.sites import REGION, make_site


@pytest.fixture(scope="module")
def local_job(trained_shapes: TrainedShapes, tmp_path_factory: pytest.TempPathFactory) -> TransformResult:
    """What a server answers to the test split, and its scores."""
    output = tmp_path_factory.mktemp("transformed")
    return run_transform_job(
        trained_shapes.artifact, input_dir=trained_shapes.data / "test", output_dir=output
    )


def put_outputs(job: TransformResult, *, spoil: bool = False) -> None:
    """As the service would after the job; spoilt, every answer is another class's."""
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    name = sagemaker.list_transform_jobs()["TransformJobSummaries"][0]["TransformJobName"]
    uri = sagemaker.describe_transform_job(TransformJobName=name)["TransformOutput"]["S3OutputPath"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    folder = job.report.parent
    for path in folder.rglob("*.out"):
        answer: Any = json.loads(path.read_bytes())
        body = json.dumps([row[::-1] for row in answer] if spoil else answer)
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        boto3.client("s3", region_name=REGION).put_object(Bucket=bucket, Key=key, Body=body)


def start_job(recipe_file: str, trained: TrainedShapes) -> list[str]:
    """Everything up to the running job; the arguments that started it."""
    assert main(["bootstrap", recipe_file]) == 0
    assert main(["upload", recipe_file, "--data", str(trained.data)]) == 0
    arguments = ["transform", recipe_file, "--artifact", str(trained.artifact)]
    assert main([*arguments, "--no-wait"]) == 0
    return arguments


def test_scores_are_the_local_jobs(
    recipe: str,  # noqa: F811
    trained_shapes: TrainedShapes,
    local_job: TransformResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = start_job(recipe, trained_shapes)
    put_outputs(local_job)
    capsys.readouterr()

    assert main([*arguments, "--output", str(tmp_path / "scored")]) == 0

    said = json.loads(capsys.readouterr().out)
    scores = json.loads((tmp_path / "scored/scores.json").read_text())
    assert said["top1_accuracy"] == local_job.scores["top1_accuracy"]["value"] and not said["alarm"]
    for part in ("counts", "top1_accuracy", "confusion_matrix", "comparison"):
        assert scores.get(part) == json.loads(json.dumps(local_job.scores.get(part))), part
    assert (tmp_path / "scored/report.html").is_file()


def test_wrong_answers_raise_the_alarm(
    recipe: str,  # noqa: F811
    trained_shapes: TrainedShapes,
    local_job: TransformResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = start_job(recipe, trained_shapes)
    put_outputs(local_job, spoil=True)
    capsys.readouterr()

    assert main([*arguments, "--output", str(tmp_path)]) == 0

    captured = capsys.readouterr()
    assert json.loads(captured.out)["alarm"]
    assert "ALARM: served != trained" in captured.err


def test_fetching_goes_on_where_it_stopped_and_stays_in_its_folder(
    service: Service, aws: Aws, tmp_path: Path
) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    bucket = make_site().bucket_name
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("a/1.jpg.out", "a/2.jpg.out"):
        s3.put_object(Bucket=bucket, Key=f"results/{key}", Body=b"[0.0]")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg.out").write_bytes(b"[9.9]")  # of the right size: there already

    fetch_folder(aws, f"s3://{bucket}/results", tmp_path)
    assert [(tmp_path / f"a/{n}.jpg.out").read_bytes() for n in (1, 2)] == [b"[9.9]", b"[0.0]"]

    s3.put_object(Bucket=bucket, Key="results//outside.out", Body=b"[]")
    with pytest.raises(PlanError, match="reaches outside"):
        fetch_folder(aws, f"s3://{bucket}/results", tmp_path)
