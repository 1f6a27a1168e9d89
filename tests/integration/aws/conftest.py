"""One moto server for all tests of this folder, and clean credentials that are none."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from aws.client import Aws
from tests.integration.aws.moto_service import Service, serve_moto
from tests.unit.aws.sites import REGION

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


@pytest.fixture(scope="session")
def moto_service() -> Iterator[Service]:
    """The server; `service` empties it for each test."""
    with pytest.MonkeyPatch.context() as patch, serve_moto(REGION) as service:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a second's work after each reset
        yield service


@pytest.fixture
def service(moto_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """An empty account, and an environment in which every AWS call goes there."""
    reset(moto_service)
    moto_service.denied.clear()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    settings = {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": moto_service.url}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return moto_service


@pytest.fixture
def aws(service: Service) -> Aws:
    """A session that does not pause."""
    return Aws(region=REGION, sleep=lambda seconds: None)


def reset(service: Service) -> None:
    """An empty account."""
    request = urllib.request.Request(f"{service.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(request).read()
