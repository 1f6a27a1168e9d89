"""The command line on moto: what people type, and what they are told."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws import costs
from aws.__main__ import main
from aws.client import Aws
from aws.errors import AwsError
from aws.execution import execute
from aws.site import RECIPE_TAG, TTL_TAG
from aws.steps import PlanError, Step
from aws.upload import plan_upload, upload
from local.image_check import write_image
from tests.bundles import encode_picture
from tests.integration.aws.conftest import CREDENTIALS
from tests.integration.aws.moto_service import Service
from tests.unit.aws.sites import REGION, make_site

RECIPE = "name = 'dogs'\n[endpoint]\ninstance_type = 'ml.m5.large'\n[endpoint.scaling]\n"


@pytest.fixture
def recipe(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe file, and images that were pushed."""
    images = tmp_path / "images.json"
    for name, uri in make_site().images.items():
        write_image(name, uri=uri, tag="abc", file=images)
    monkeypatch.setattr("aws.planning.read_images", lambda: json.loads(images.read_text()))
    path = tmp_path / "dogs.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of images, one split under another name."""
    for name in ("train/a/1.jpg", "train/b/2.jpg", "validation/a/3.jpg", "test/a/4.jpg", "train/.hidden"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_picture("JPEG") + name.encode())
    return tmp_path / "images"


def run(*arguments: str, code: int = 0) -> None:
    """`python -m aws ...`"""
    assert main(arguments) == code


def log_line(name: str, text: str, group: str = "/aws/sagemaker/TrainingJobs") -> None:
    """A line in a job's log."""
    logs = boto3.client("logs", region_name=REGION)
    stream = f"{name}/algo-1"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    event = {"timestamp": int(time.time() * 1000), "message": text}
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])


def test_whole_life_by_the_command_line(recipe: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("bootstrap", recipe)
    run("upload", recipe, "--data", str(data))
    run("train", recipe)
    run("deploy", recipe)
    run("deploy", recipe)
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again == {"recipe": "dogs", "verb": "deploy", "created": 0, "changed": 0, "kept": 5}
    run("invoke", recipe, str(data / "test/a/4.jpg"))
    run("status", recipe)
    assert '"InService"' in capsys.readouterr().out

    run("destroy", recipe, "--results", "--data", "--bootstrap")

    assert boto3.client("sagemaker", region_name=REGION).list_endpoints()["Endpoints"] == []
    assert boto3.client("s3", region_name=REGION).list_buckets()["Buckets"] == []


def test_upload_goes_on_where_it_stopped(recipe: str, data: Path, aws: Aws) -> None:
    run("bootstrap", recipe)
    bucket = make_site().bucket_name
    files = plan_upload(data, "data/dogs")
    assert sorted(files) == [
        "data/dogs/test/a/4.jpg",
        "data/dogs/train/a/1.jpg",
        "data/dogs/train/b/2.jpg",
        "data/dogs/valid/a/3.jpg",
    ]
    first = dict(list(files.items())[:2])
    assert upload(aws, bucket, first).sent == 2

    rest = upload(aws, bucket, files)
    (data / "test/a/4.jpg").write_bytes(b"changed")
    after_change = upload(aws, bucket, files)

    assert (rest.sent, rest.kept) == (2, 2)
    assert (after_change.sent, after_change.kept, after_change.sent_bytes) == (1, 3, 7)


def test_upload_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for folder, said in ((tmp_path / "absent", "There is no folder"), (tmp_path / "empty", "holds no files")):
        with pytest.raises(PlanError, match=said):
            plan_upload(folder, "data/dogs")


def test_estimate_counts_the_bucket_and_starts_nothing(
    recipe: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("bootstrap", recipe)
    run("upload", recipe, "--data", str(data))
    capsys.readouterr()

    run("transform", recipe, "--estimate", "0.01")

    said = json.loads(capsys.readouterr().out)
    assert said == {"recipe": "dogs", "images": 1, "minutes": 6.7, "dollars": 0.013}
    assert boto3.client("sagemaker", region_name=REGION).list_transform_jobs()["TransformJobSummaries"] == []


def test_doctor_finds_what_is_missing_then_what_is_denied(
    recipe: str, data: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    run("doctor", recipe, code=1)
    bare = capsys.readouterr().out
    assert "bucket is missing" in bare and "Role kennel-training-eu-west-1 is missing" in bare
    assert "training is not in ECR" in bare
    run("bootstrap", recipe)
    run("upload", recipe, "--data", str(data))
    capsys.readouterr()
    service.denied.add("s3:PutObject")

    run("doctor", recipe, code=1)

    said = capsys.readouterr().out
    assert "is not allowed s3:PutObject" in said
    assert "missing;" not in said


def test_doctor_reads_the_image_that_was_pushed(
    recipe: str,
    data: Path,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("bootstrap", recipe)
    run("upload", recipe, "--data", str(data))
    registry = boto3.client("ecr", region_name=REGION)
    images: dict[str, dict[str, str]] = {}
    for name, media_type in (("training", "docker.distribution"), ("serving-cpu", "oci.image")):
        whole = f"application/vnd.{media_type}.manifest.v2+json"
        config = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": 1,
            "digest": "sha256:1",
        }
        manifest = json.dumps({"schemaVersion": 2, "mediaType": whole, "config": config, "layers": []})
        put = registry.put_image(repositoryName=f"kennel/{name}", imageManifest=manifest, imageTag="abc")
        digest = put["image"]["imageId"]["imageDigest"]
        images[name] = {"uri": f"{make_site().registry}/kennel/{name}@{digest}"}
    monkeypatch.setattr("aws.planning.read_images", lambda: images)
    monkeypatch.setattr(service, "architecture", "arm64")
    capsys.readouterr()

    run("doctor", recipe, code=1)

    said = capsys.readouterr().out
    assert "serving-cpu has a manifest of type application/vnd.oci.image" in said
    assert "training is built for arm64" in said
    assert "training has a manifest" not in said and "not in ECR" not in said


def test_why_names_cause_and_fix(recipe: str, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    run("bootstrap", recipe)
    run("train", recipe)
    name = json.loads(capsys.readouterr().out.splitlines()[0] or "{}") and list_jobs()[0]
    service.fail_training_job(name, "AlgorithmError: , exit code: 1")
    log_line(name, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")

    run("why", name)

    said = capsys.readouterr().out
    assert f"{name} is Failed" in said and "gpu memory" in said and "Lower batch_size" in said
    run("why", "unknown", code=1)
    assert "No job and no endpoint is called 'unknown'" in capsys.readouterr().err


def list_jobs() -> list[str]:
    """Names of training jobs."""
    jobs = boto3.client("sagemaker", region_name=REGION).list_training_jobs()["TrainingJobSummaries"]
    return [job["TrainingJobName"] for job in jobs]


def test_failed_job_ends_the_command_with_its_cause(
    recipe: str, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    run("bootstrap", recipe)
    run("train", recipe)
    (name,) = list_jobs()
    service.fail_training_job(name, "Unknown hyperparameter 'epoch'. Did you mean 'epochs'?")

    run("train", recipe, code=1)

    said = capsys.readouterr().err
    assert "is Failed: Unknown hyperparameter 'epoch'" in said and "to do:" in said


def test_costs_show_and_stop_only_expired_endpoints_of_ours(
    recipe: str, aws: Aws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("bootstrap", recipe)
    run("deploy", recipe)
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    config = sagemaker.list_endpoint_configs()["EndpointConfigs"][0]["EndpointConfigName"]
    tags = {"old": {RECIPE_TAG: "old", TTL_TAG: "0.5"}, "other": {}}
    for name, own in tags.items():
        listed = [{"Key": key, "Value": value} for key, value in own.items()]
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config, Tags=listed)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    monkeypatch.setattr(costs, "_hours_since", lambda moment: (later - moment).total_seconds() / 3600)

    run("costs", "--expired")

    said = capsys.readouterr()
    assert "1 x ml.m5.large" in said.out and "0.115 $/h" in said.out and "EXPIRED (ttl 0.5 h)" in said.out
    assert "other" not in said.out.split()
    left = {endpoint["EndpointName"] for endpoint in sagemaker.list_endpoints()["Endpoints"]}
    assert left == {"dogs", "other"}


def test_price_of_a_thousand_predictions() -> None:
    settings: dict[str, Any] = {"kind": "endpoint", "name": "x", "recipe": "x", "machines": "", "hours": 1.0}

    line = costs.Line(**settings, dollars_per_hour=0.5, predictions_per_hour=2000)

    assert line.dollars_per_1000 == 0.25
    assert costs.Line(**settings, dollars_per_hour=0.5).dollars_per_1000 is None
    assert "whose type is not in" in costs.format_costs([costs.Line(**settings, dollars_per_hour=None)])


def test_logs_show_a_jobs_lines(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("bootstrap", recipe)
    run("train", recipe)
    (name,) = list_jobs()
    log_line(name, "metric validation_loss=0.500000;")
    capsys.readouterr()

    run("logs", name)

    assert capsys.readouterr().out == "metric validation_loss=0.500000;\n"


def test_without_credentials_one_sentence_says_what_to_do(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    run("train", recipe, code=1)

    said = capsys.readouterr().err
    assert said.startswith("error: No AWS credentials") and len(said.splitlines()) == 1


def test_refusal_names_value_and_remedy(aws: Aws) -> None:
    with pytest.raises(AwsError) as caught:
        aws.call("s3", "PutObject", {"Bucket": "no-such-bucket", "Key": "a", "Body": b"payload-of-the-test"})

    assert "no-such-bucket" in str(caught.value) and "python -m aws bootstrap" in str(caught.value)
    assert "payload-of-the-test" not in str(caught.value)


def test_stand_ins_of_a_dry_run_are_never_sent(aws: Aws) -> None:
    digest = "sha256:" + "0" * 64
    request = {"ModelName": "m", "PrimaryContainer": {"Image": f"{make_site().registry}/x@{digest}"}}
    step = Step(service="sagemaker", operation="CreateModel", request=request)

    with pytest.raises(PlanError, match="never pushed"):
        execute(aws, [step], print)


def test_nothing_said_holds_credentials_or_payloads(
    recipe: str, data: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run("bootstrap", recipe)
        run("upload", recipe, "--data", str(data))
        run("deploy", recipe)
        run("invoke", recipe, str(data / "test/a/4.jpg"))
        run("doctor", recipe, code=1)
        run("train", recipe, "--dry-run")

    said = "".join(capfd.readouterr()) + caplog.text
    assert len(said) > 1000
    for secret in (*CREDENTIALS.values(), "JFIF"):
        assert secret not in said
