"""The only file that talks to AWS. Requests go in as dictionaries, answers and AwsError come out.

Credentials come from where boto3 looks for them; they, and what requests carry, are never logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError  # an answer that is not the service's, as a proxy's page

from aws.errors import AwsError, explain_error

# A role is known in one place before it is in the next; these errors pass within a minute of CreateRole.
NOT_YET = (
    "cannot be assumed",
    "could not assume role",
    "invalid iam instance profile",
    "is invalid or cannot be",
)
PROPAGATION_SECONDS = 60.0
PAUSE_SECONDS = 4.0
READ_SECONDS = 70  # longer than the 60 that an invocation may take
MAX_CONNECTIONS = 32  # uploads and downloads run in 16 threads; botocore keeps 10


class Aws:
    """One session. `call` sends one request; `pages` follows the tokens of a listing."""

    def __init__(
        self, *, region: str = "", profile: str | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        try:
            self._session = boto3.Session(region_name=region or None, profile_name=profile)
        except ProfileNotFound as error:
            raise AwsError(f"{error}. Name one of `aws configure list-profiles`.") from None
        self._clients: dict[str, Any] = {}
        self.sleep = sleep

    @property
    def region(self) -> str:
        """Of the session. Raises AwsError where there is none."""
        region: str | None = self._session.region_name
        if not region:
            raise AwsError("No AWS region: give --region, [aws] region in the recipe, or AWS_REGION.")
        return region

    def call(self, service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer. Raises AwsError with what happened, which value, and what to do."""
        deadline = time.monotonic() + PROPAGATION_SECONDS
        while True:
            try:
                return self._send(service, operation, request)
            except AwsError as error:
                passing = any(text in str(error).lower() for text in NOT_YET)
                if not passing or not operation.startswith(("Create", "Run")) or time.monotonic() > deadline:
                    raise
                self.sleep(PAUSE_SECONDS)

    def pages(self, service: str, operation: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every page of a listing."""
        method = _snake(operation)
        client = self._client(service)
        if not client.can_paginate(method):
            yield self.call(service, operation, request)
            return
        try:
            yield from client.get_paginator(method).paginate(**request)
        except ClientError as error:
            raise _translate(error, service, operation, request) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise _translate_connection(error, service) from None

    def _send(self, service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            method = getattr(self._client(service), _snake(operation))
            answer: dict[str, Any] = method(**_open_files(request))
            return answer
        except ClientError as error:
            raise _translate(error, service, operation, request) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise _translate_connection(error, service) from None

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            retries = {"mode": "standard", "total_max_attempts": 5}
            config = Config(
                retries=retries,
                read_timeout=READ_SECONDS,
                connect_timeout=10,
                max_pool_connections=MAX_CONNECTIONS,
            )
            try:
                self._clients[service] = self._session.client(service, config=config)
            except (BotoCoreError, ValueError) as error:
                raise _translate_connection(error, service) from None
        return self._clients[service]


def _open_files(value: Any) -> Any:
    """Paths in a request stand for their content."""
    if isinstance(value, Mapping):
        return {key: _open_files(item) for key, item in value.items()}
    return value.read_bytes() if isinstance(value, Path) else value


def _snake(operation: str) -> str:
    """boto3's method for an operation of the API."""
    return str(xform_name(operation))


def _translate(error: ClientError, service: str, operation: str, request: Mapping[str, Any]) -> AwsError:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    sentence = explain_error(
        code=code, message=message, service=service, operation=operation, request=request
    )
    return AwsError(sentence, code=code, message=message, status=status, answer=error.response)


def _translate_connection(error: Exception, service: str) -> AwsError:
    if isinstance(error, NoCredentialsError):
        return AwsError(
            "No AWS credentials: run `aws configure` or `aws sso login`, or set AWS_PROFILE. "
            "--dry-run needs none.",
            code="NoCredentials",
        )
    if isinstance(error, NoRegionError):
        return AwsError("No AWS region: give --region, [aws] region in the recipe, or AWS_REGION.")
    if isinstance(error, EndpointConnectionError):
        return AwsError(f"{service} cannot be reached ({error}); check the region's name and the network.")
    return AwsError(f"{service}: {error}", code=type(error).__name__)
