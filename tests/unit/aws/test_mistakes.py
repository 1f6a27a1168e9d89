"""Mistakes people make, each caught before anything is created, with the advice that ends it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from aws.doctor import DOCKER_MANIFEST, Facts, Image, judge
from aws.instances import SERVING_GPU_CUDA
from aws.planning import Asked, plan
from aws.steps import PlanError
from aws.validation import check_steps
from tests.unit.aws.sites import ACCOUNT, REGION, REPOSITORY, make_recipe, make_site
from training.recipe_table import RecipeError

ROLES = {
    make_site().role_name(purpose): {"Service": "sagemaker.amazonaws.com"}
    for purpose in ("training", "serving")
}
IMAGES = {name: Image(uri=uri) for name, uri in make_site().images.items()}
IMAGES["serving-gpu"] = dataclasses.replace(IMAGES["serving-gpu"], cuda=12)
USES = ("training job", "spot training job", "endpoint", "transform job")
TYPES = ("ml.m5.xlarge", "ml.m5.large", "ml.g5.xlarge", "ml.g4dn.xlarge", "ml.p2.xlarge", "ml.c6g.large")
HEALTHY = Facts(
    account_id=ACCOUNT,
    region=REGION,
    bucket_region=REGION,
    objects={"train": 900, "valid": 100, "test": 100},
    largest_object_bytes=3_000_000,
    images=IMAGES,
    quotas={f"{kind} for {use} usage": 20.0 for kind in TYPES for use in USES},
    roles=ROLES,
)


def image(name: str, **changes: object) -> dict[str, dict[str, Image | None]]:
    """The facts in which one image is another."""
    return {"images": {**IMAGES, name: dataclasses.replace(IMAGES[name], **changes)}}  # type: ignore[arg-type]


def test_healthy_account_has_no_finding(tmp_path: Path) -> None:
    assert judge(make_recipe(tmp_path, ""), HEALTHY) == []


TRAINING_ROLE = make_site().role_name("training")


@pytest.mark.parametrize(
    ("text", "changes", "about", "advice"),
    [
        pytest.param("", {"account_id": ""}, "credentials", "aws configure", id="no credentials"),
        pytest.param("[aws]\nregion = 'us-west-2'", {}, "region", "--region us-west-2", id="wrong region"),
        pytest.param("", {"bucket_region": None}, "bucket", "python -m aws bootstrap", id="no bucket"),
        pytest.param("", {"bucket_region": "us-east-1"}, "bucket", "set [aws] region", id="bucket elsewhere"),
        pytest.param("", {"objects": {"train": 0}}, "data", "python -m aws upload", id="no data"),
        pytest.param(
            "",
            {"largest_object_bytes": 20_000_000},
            "payload",
            "max_payload_mb = 20 and max_concurrent_transforms = 5",
            id="payload too large",
        ),
        pytest.param(
            "", {"largest_object_bytes": 2 * 10**8}, "payload", "100 MB at most", id="payload hopeless"
        ),
        pytest.param(
            "[endpoint.serverless]\n[transform]\nmax_payload_mb = 10",
            {"largest_object_bytes": 5_000_000},
            "payload",
            "4 MB for certain",
            id="payload serverless",
        ),
        pytest.param(
            "", {"images": {**IMAGES, "training": None}}, "image", "build_and_push.sh", id="not pushed"
        ),
        pytest.param(
            "",
            image("training", uri=IMAGES["training"].uri.replace(REGION, "us-east-1")),
            "image",
            f"AWS_REGION={REGION}",
            id="image elsewhere",
        ),
        pytest.param(
            "",
            image("training", media_type="application/vnd.oci.image.index.v1+json"),
            "manifest",
            "Docker v2 manifest",
            id="OCI manifest",
        ),
        pytest.param(
            "",
            image("serving-cpu", architecture="arm64"),
            "architecture",
            "PLATFORM=linux/amd64",
            id="arm image",
        ),
        pytest.param(
            "[endpoint]\ninstance_type = 'ml.c6g.large'",
            {},
            "architecture",
            "PLATFORM=linux/arm64",
            id="Graviton",
        ),
        pytest.param(
            "[transform]\ninstance_type = 'ml.g5.xlarge'",
            image("serving-gpu", cuda=13),
            "driver",
            "535 at most",
            id="CUDA 13 on g5 Batch",
        ),
        pytest.param(
            "[endpoint]\ninstance_type = 'ml.inf2.xlarge'",
            {},
            "instance type",
            "choose a CPU type",
            id="Inferentia",
        ),
        pytest.param(
            "[training]\ninstance_type = 'ml.p2.xlarge'", {}, "instance type", "ml.g4dn or newer", id="K80"
        ),
        pytest.param(
            "[training]\ninstance_type = 'ml.g5.12xlarge'",
            {},
            "quota",
            "Service Quotas",
            id="no quota",
        ),
        pytest.param(
            "[training]\nkeep_alive_seconds = 600",
            {},
            "quota",
            "warm pool",
            id="no quota for warm pools",
        ),
        pytest.param("", {"roles": {TRAINING_ROLE: None}}, "role", "python -m aws bootstrap", id="no role"),
        pytest.param(
            "",
            {"roles": {TRAINING_ROLE: {"Service": "ec2.amazonaws.com"}}},
            "trust",
            "does not trust",
            id="trust",
        ),
        pytest.param(
            "",
            {"denied": [(TRAINING_ROLE, "s3:PutObject")]},
            "permission",
            "not allowed s3:PutObject",
            id="missing role permission",
        ),
        pytest.param(
            "[debugger]\non_service = true",
            {"debugger_closed": True},
            "debugger",
            "on_service = false",
            id="closed Debugger",
        ),
        pytest.param(
            "[endpoint]\ncapture_percent = 5", {}, "capture", "Model Monitor is closed", id="capture"
        ),
        pytest.param(
            "[hyperparameters]\npretrained = true\n[training]\nnetwork_isolation = true",
            {},
            "isolation",
            "[training] weights",
            id="isolated download",
        ),
        pytest.param(
            "[hyperparameters]\npretrained = true\n[aws]\nsubnets = ['subnet-1']\nsecurity_groups = ['sg-1']",
            {},
            "network",
            "NAT gateway",
            id="private download",
        ),
    ],
)
def test_doctor_finds_it(
    text: str, changes: dict[str, object], about: str, advice: str, tmp_path: Path
) -> None:
    facts = dataclasses.replace(HEALTHY, **changes)  # type: ignore[arg-type]

    findings = judge(make_recipe(tmp_path, text), facts)

    fitting = [finding.message for finding in findings if finding.about == about]
    assert fitting and advice in fitting[0], findings


@pytest.mark.parametrize(
    ("text", "verb", "advice"),
    [
        pytest.param(
            "[training]\ninstance_type = 'ml.bogus.large'",
            "train",
            "is not offered by the service",
            id="type",
        ),
        pytest.param(
            "[training]\ninstance_type = 'ml.m5.xlrage'", "train", "Did you mean ml.m5.xlarge", id="typo"
        ),
        pytest.param("[training]\nspot = true\nmax_run_seconds = 9", "train", "max_wait_seconds", id="spot"),
        pytest.param(
            "[endpoint]\ninstance_type = 'ml.trn1.2xlarge'", "deploy", "choose a CPU type", id="Trainium"
        ),
        pytest.param(
            "[hyperparameters]\npretrained = true\n[training]\nnetwork_isolation = true",
            "train",
            "state dict",
            id="isolated",
        ),
        pytest.param(
            "[debugger]\non_service = true\n[training]\nspot = true\nmax_wait_seconds = "
            "9999\ninstance_count = 2",
            "train",
            "drop one of the three",
            id="debugger with checkpoints on two hosts",
        ),
        pytest.param("", "tune", "has no [tuning]", id="nothing to tune"),
        pytest.param("[endpoint.serverless]", "autoscale", "scales by itself", id="serverless scaling"),
        pytest.param("[ec2]\ninstance_type = 'm7g.large'", "ec2", "ARM machine", id="ARM on EC2"),
        pytest.param(
            "[transform]\nmax_payload_mb = 30", "transform", "SageMaker allows 100", id="transform product"
        ),
        pytest.param(
            "[endpoint.serverless]\nmemory_mb = 7168", "deploy", "outside 1024 to 6144", id="memory"
        ),
        pytest.param("[aws.tags]\n'a;b' = 'x'", "train", "does not have the form", id="tag"),
    ],
)
def test_planner_refuses_it(text: str, verb: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises((PlanError, RecipeError)) as caught:
        check_steps(plan(verb, make_recipe(tmp_path, text), make_site(), Asked()))

    assert advice in str(caught.value)


def test_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="1 to 20 lower-case"):
        make_recipe(tmp_path, "", name="dogs-and-cats-and-birds")


def test_image_of_another_region_is_refused(tmp_path: Path) -> None:
    site = dataclasses.replace(make_site(), region="us-east-1")

    with pytest.raises(PlanError, match="AWS_REGION=us-east-1"):
        plan("train", make_recipe(tmp_path, ""), site, Asked())


def test_docker_manifest_is_what_the_push_makes() -> None:
    assert DOCKER_MANIFEST == "application/vnd.docker.distribution.manifest.v2+json"


def test_gpu_image_is_still_of_the_cuda_line_that_the_planner_counts_on() -> None:
    lock = (REPOSITORY / "requirements/serving-gpu.txt").read_text()

    assert set(re.findall(r"^nvidia-\S+-cu(\d+)==", lock, re.MULTILINE)) == {str(SERVING_GPU_CUDA)}
