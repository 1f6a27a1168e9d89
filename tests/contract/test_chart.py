"""The Helm chart: rendered by the real helm, validated against Kubernetes' own schemas."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from local.platform import REPOSITORY
from serving import gunicorn_conf
from serving.settings import SETTINGS
from tests.helm import (
    CASES,
    CHART,
    DIGEST,
    NEWEST,
    OLDEST,
    PVC,
    S3,
    Helm,
    Manifest,
    containers_of,
    every_case,
    pod_of,
    the,
)


@every_case
def test_lint_is_content(helm: Helm, values: dict[str, Any]) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=values)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@every_case
def test_every_object_is_valid(helm: Helm, values: dict[str, Any], version: str) -> None:
    manifests = helm.render(values, kube_version=version)

    assert len(manifests) >= 2
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def misspell_probe(pod: Manifest) -> None:
    """A name Kubernetes does not know."""
    pod["containers"][0]["readynessProbe"] = pod["containers"][0].pop("readinessProbe")


def quote_grace(pod: Manifest) -> None:
    """A text where a number belongs."""
    pod["terminationGracePeriodSeconds"] = "35"


def drop_name(pod: Manifest) -> None:
    """A required field that is absent."""
    del pod["containers"][0]["name"]


@pytest.mark.parametrize("fault", [misspell_probe, quote_grace, drop_name])
def test_planted_fault_is_found(helm: Helm, fault: Callable[[Manifest], None]) -> None:
    deployment = copy.deepcopy(the("Deployment", helm.render({})))
    fault(deployment["spec"]["template"]["spec"])

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, OLDEST, strict=True)


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("defaults", {"Deployment", "Service", "PodDisruptionBudget"}),
        ("autoscaling", {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}),
        ("ingress", {"Deployment", "Service", "PodDisruptionBudget", "Ingress"}),
        (
            "s3 with a role",
            {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"},
        ),
        ("least", {"Deployment", "Service"}),
    ],
)
def test_objects_are_made_where_asked_for(helm: Helm, case: str, kinds: set[str]) -> None:
    assert sorted(manifest["kind"] for manifest in helm.render(CASES[case])) == sorted(kinds)


@every_case
def test_no_container_can_gain_anything(helm: Helm, values: dict[str, Any]) -> None:
    manifests = helm.render(values)
    pod = pod_of(manifests)

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers_of(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_pod_cannot_be_asked_to_run_as_root_or_without_seccomp(helm: Helm) -> None:
    values = {"podSecurityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}}}

    security = pod_of(helm.render(values))["securityContext"]

    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


@every_case
def test_every_image_names_a_version(helm: Helm, values: dict[str, Any]) -> None:
    for container in containers_of(helm.render(values)):
        assert re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]), container[
            "image"
        ]


def test_digest_decides_over_the_tag(helm: Helm) -> None:
    assert containers_of(helm.render(CASES["digest"]))[0]["image"] == f"kennel/serving-cpu@{DIGEST}"


def test_default_tag_is_the_version_of_the_project(helm: Helm) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    assert containers_of(helm.render({}))[0]["image"] == f"kennel/serving-cpu:{version}"


def test_probes_ask_ping_on_the_port_the_server_listens_on(helm: Helm) -> None:
    server = pod_of(helm.render({}))["containers"][0]

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"] == {"path": "/ping", "port": "http"}
    assert server["ports"] == [{"name": "http", "containerPort": int(SETTINGS["port"].default)}]
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] == 480


def test_server_replaces_a_stuck_worker_before_the_pod_is_killed(helm: Helm) -> None:
    probe = pod_of(helm.render({}))["containers"][0]["livenessProbe"]

    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > gunicorn_conf.timeout


@pytest.mark.parametrize("delay", [0, 5, 20])
def test_grace_covers_the_delay_and_the_draining(helm: Helm, delay: int) -> None:
    pod = pod_of(helm.render({"drain.delaySeconds": delay}))
    hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")

    assert hook == (["sleep", str(delay)] if delay else None)
    assert pod["terminationGracePeriodSeconds"] - delay > gunicorn_conf.graceful_timeout


@every_case
def test_selectors_find_the_pods(helm: Helm, values: dict[str, Any]) -> None:
    manifests = helm.render(values)
    spec = the("Deployment", manifests)["spec"]
    labels = spec["template"]["metadata"]["labels"].items()
    selectors = [spec["selector"]["matchLabels"], the("Service", manifests)["spec"]["selector"]]
    for manifest in manifests:
        if manifest["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            chosen = manifest["spec"].get("selector") or manifest["spec"]["podSelector"]
            selectors.append(chosen["matchLabels"])
    for spread in spec["template"]["spec"].get("topologySpreadConstraints", []):
        selectors.append(spread["labelSelector"]["matchLabels"])

    assert all(selector and selector.items() <= labels for selector in selectors)
    assert all("version" not in name for selector in selectors for name in selector)  # an upgrade changes it


def test_autoscaler_scales_the_deployment_and_nothing_else_counts_its_pods(helm: Helm) -> None:
    manifests = helm.render(CASES["autoscaling"])
    deployment = the("Deployment", manifests)

    target = the("HorizontalPodAutoscaler", manifests)["spec"]["scaleTargetRef"]

    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    assert the("Deployment", helm.render({}))["spec"]["replicas"] == 2


def test_ingress_leads_to_the_service(helm: Helm) -> None:
    manifests = helm.render(CASES["ingress"])
    service, ingress = the("Service", manifests), the("Ingress", manifests)["spec"]

    (rule,) = ingress["rules"]

    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": service["metadata"]["name"],
        "port": {"name": service["spec"]["ports"][0]["name"]},
    }
    assert rule["host"] == "dogs.example.org"
    assert ingress["tls"] == [{"secretName": "dogs", "hosts": ["dogs.example.org"]}]


def test_closed_network_lets_only_the_download_out(helm: Helm) -> None:
    closed = the("NetworkPolicy", helm.render(CASES["closed network"]))["spec"]
    downloading = the("NetworkPolicy", helm.render(CASES["s3 with a role"]))["spec"]

    assert closed["egress"] == []
    assert closed["ingress"] == [
        {"ports": [{"port": "http"}], "from": CASES["closed network"]["networkPolicy.from"]}
    ]
    assert {port["port"] for rule in downloading["egress"] for port in rule["ports"]} == {53, 80, 443}


@every_case
def test_only_memory_and_init_containers_volumes_are_writable(helm: Helm, values: dict[str, Any]) -> None:
    pod = pod_of(helm.render(values))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}

    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}

    assert writable == {"/dev/shm", "/tmp"}
    assert all(volumes[mounts[path]["name"]]["emptyDir"]["medium"] == "Memory" for path in writable)


def test_claim_is_mounted_where_the_server_looks(helm: Helm) -> None:
    pod = pod_of(helm.render(PVC))

    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "model")

    assert mount == {
        "name": "model",
        "mountPath": SETTINGS["model_dir"].default,
        "readOnly": True,
        "subPath": "dogs/1",
    }
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]


def test_service_named_kennel_sets_no_setting(helm: Helm) -> None:
    """Kubernetes would otherwise set KENNEL_PORT=tcp://... in every pod of the namespace."""
    assert all(pod_of(helm.render(values))["enableServiceLinks"] is False for values in ({}, S3))


def test_settings_arrive_as_they_were_written(helm: Helm, tmp_path: Path) -> None:
    """From a file, where helm reads every number as a float."""
    (tmp_path / "values.yaml").write_text(
        'env: {KENNEL_MAX_PIXELS: 89478485, KENNEL_PRECISION: "fp32", A: true}'
    )

    done = helm.run("template", "dogs", str(CHART), "-f", str(tmp_path / "values.yaml"), values={})

    server = pod_of([manifest for manifest in yaml.safe_load_all(done.stdout) if manifest])["containers"][0]
    assert server["env"] == [
        {"name": "A", "value": "true"},
        {"name": "KENNEL_MAX_PIXELS", "value": "89478485"},
        {"name": "KENNEL_PRECISION", "value": "fp32"},
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model.source": "pvc"}, "model.pvc.claimName is empty; set it to the claim"),
        ({"model.source": "s3"}, 'model.s3.uri is ""; set it to s3://bucket/key of a model.tar.gz.'),
        (S3 | {"model.s3.uri": "models/dogs"}, 'model.s3.uri is "models/dogs"; set it to s3://'),
        (S3 | {"model.s3.uri": "s3://models/"}, 'model.s3.uri is "s3://models/"; set it to s3://'),
        (PVC | {"model.source": "image"}, 'model.pvc.claimName is "models"; a model comes from one source'),
        (S3 | {"model.pvc.claimName": "models"}, "model.source is s3, but model.pvc.claimName is"),
        ({"image.tag": "latest"}, "image.tag is latest, which names no version; set a tag or image.digest."),
        (
            {"autoscaling.minReplicas": 11},
            "autoscaling.minReplicas is 11, more than autoscaling.maxReplicas, 10",
        ),
        ({"env.SAGEMAKER_BIND_TO_PORT": 80}, "env.SAGEMAKER_BIND_TO_PORT is the chart's own"),
        ({"env.KENNEL_MODEL_DIR": "/model"}, "env.KENNEL_MODEL_DIR is the chart's own"),
        ({"model.source": "ftp"}, "at '/model/source': value must be one of 'image', 'pvc', 's3'"),
        ({"model.source": None}, "at '/model': missing property 'source'"),
        ({"model.s3.url": "s3://a/b"}, "at '/model/s3': additional properties 'url' not allowed"),
        ({"modle.source": "s3"}, "additional properties 'modle' not allowed"),
        ({"image.digest": "sha256:123"}, "at '/image/digest': 'sha256:123' does not match pattern"),
        ({"model.image.reference": "models/dogs"}, "at '/model/image/reference'"),
        ({"env.workers": 2}, "invalid propertyName 'workers'"),
        ({"env.KENNEL_WORKERS": [2]}, "at '/env/KENNEL_WORKERS'"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    ],
)
def test_value_is_refused_with_a_sentence(helm: Helm, values: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refuse(values)


@pytest.mark.parametrize("source", ["ftp", None])
def test_source_is_refused_without_the_schema_too(helm: Helm, source: str | None) -> None:
    said = helm.refuse({"model.source": source}, "--skip-schema-validation")

    assert f'model.source is "{source or ""}"; set it to image, pvc or s3.' in said
