"""moto's real HTTP server in a thread, and what it does not have, answered as the service would.

Lacking in 2026-11: UpdateEndpoint, StopTrainingJob, DeleteModelPackage and its group's, Lambda's provisioned
concurrency, IAM's simulation. They act on moto's own state where there is some, so that Describe shows it.
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from tests.unit.aws.sites import ACCOUNT

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

CONCURRENCY = re.compile(r"/2019-09-30/functions/([^/]+)/provisioned-concurrency")
INVOCATIONS = re.compile(r"/endpoints/([^/]+)/invocations")  # moto takes text only


class Service:
    """moto, and what it lacks. `calls` are the operations of SageMaker that were asked for."""

    def __init__(self, region: str) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._region = region
        self.warm: dict[str, dict[str, Any]] = {}
        self.bucket_policies: dict[str, bytes] = {}
        self.url = ""
        self.architecture = "amd64"  # of every image
        self.denied: set[str] = set()  # actions that the simulation denies

    @property
    def _sagemaker(self) -> Any:
        """moto's state; a reset makes a new one."""
        return get_backend("sagemaker")[ACCOUNT][self._region]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        answer = self._answer(Request(environ))
        environ["wsgi.input"] = io.BytesIO(body)
        return (answer or self._moto)(environ, start_response)

    def _answer(self, request: Request) -> Response | None:
        operation = request.headers.get("X-Amz-Target", "").removeprefix("SageMaker.")
        own = getattr(self, f"_{operation}", None) if operation else None
        if own:
            return _json(own(json.loads(request.get_data())))
        found = CONCURRENCY.fullmatch(request.path)
        if found:
            return self._provisioned_concurrency(found[1], request)
        image_or_model = self._image(operation, request) or self._invocation(request)
        if image_or_model:
            return image_or_model
        if "policy" in request.args and request.method in ("GET", "PUT"):
            return self._bucket_policy(request)
        if request.path == "/moto-api/reset":
            self.warm.clear()
            self.bucket_policies.clear()
        if request.form.get("Action") == "SimulatePrincipalPolicy":
            return self._simulate(request)
        return None

    def _image(self, operation: str, request: Request) -> Response | None:
        """ECR's way to an image's configuration."""
        if operation.endswith(".GetDownloadUrlForLayer"):
            digest = json.loads(request.get_data())["layerDigest"]
            return _json({"downloadUrl": f"{self.url}/blobs/{digest}", "layerDigest": digest})
        if request.path.startswith("/blobs/"):
            return _json({"architecture": self.architecture, "os": "linux"})
        return None

    def _invocation(self, request: Request) -> Response | None:
        asked = INVOCATIONS.fullmatch(request.path)
        if asked and asked[1] in self._sagemaker.endpoints:
            return _json({"predictions": [{"label": "a stub", "probability": 1.0}]})
        return None

    def _UpdateEndpoint(self, wanted: dict[str, Any]) -> dict[str, Any]:
        endpoint = self._sagemaker.endpoints[wanted["EndpointName"]]
        endpoint.endpoint_config_name = wanted["EndpointConfigName"]
        return {"EndpointArn": endpoint.arn}

    def _StopTrainingJob(self, wanted: dict[str, Any]) -> dict[str, Any]:
        job = self._sagemaker.training_jobs[wanted["TrainingJobName"]]
        job.training_job_status = job.secondary_status = "Stopped"
        return {}

    def fail_training_job(self, name: str, reason: str) -> None:
        """As if the job had ended so."""
        job = self._sagemaker.training_jobs[name]
        job.training_job_status = job.secondary_status = "Failed"
        job.failure_reason = reason

    def _DeleteModelPackage(self, wanted: dict[str, Any]) -> dict[str, Any]:
        packages = self._sagemaker.model_packages
        for name in [name for name, found in packages.items() if found.arn == wanted["ModelPackageName"]]:
            del packages[name]
        return {}

    def _DeleteModelPackageGroup(self, wanted: dict[str, Any]) -> dict[str, Any]:
        del self._sagemaker.model_package_groups[wanted["ModelPackageGroupName"]]
        return {}

    def _provisioned_concurrency(self, function: str, request: Request) -> Response:
        key = f"{function}:{request.args['Qualifier']}"
        if request.method == "PUT":
            count = json.loads(request.get_data())["ProvisionedConcurrentExecutions"]
            now = datetime.datetime.now(datetime.UTC).isoformat()
            self.warm[key] = {
                "RequestedProvisionedConcurrentExecutions": count,
                "AllocatedProvisionedConcurrentExecutions": count,
                "Status": "READY",
                "LastModified": now,
            }
        if key not in self.warm:
            name = "ProvisionedConcurrencyConfigNotFoundException"
            return _json({"Message": "No Provisioned Concurrency Config found"}, status=404, error=name)
        return _json(self.warm[key])

    def _bucket_policy(self, request: Request) -> Response:
        """Kept here: moto would apply the refusal of plain HTTP to every request, without its condition."""
        if request.method == "PUT":
            self.bucket_policies[request.path] = request.get_data()
            return Response(status=204)
        if request.path in self.bucket_policies:
            return Response(self.bucket_policies[request.path], content_type="application/json")
        body = "<Error><Code>NoSuchBucketPolicy</Code><Message>no policy</Message></Error>"
        return Response(body, status=404, content_type="application/xml")

    def _simulate(self, request: Request) -> Response:
        actions = [value for key, value in request.form.items() if key.startswith("ActionNames.member")]
        results = "".join(
            f"<member><EvalActionName>{action}</EvalActionName><EvalDecision>"
            f"{'implicitDeny' if action in self.denied else 'allowed'}</EvalDecision></member>"
            for action in actions
        )
        name = "SimulatePrincipalPolicy"
        body = (
            f'<{name}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{name}Result>'
            f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>"
            f"</{name}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{name}Response>"
        )
        return Response(body, content_type="text/xml")


def _json(content: dict[str, Any], *, status: int = 200, error: str = "") -> Response:
    headers = {"x-amzn-errortype": error} if error else {}
    return Response(
        json.dumps(content), status=status, headers=headers, content_type="application/x-amz-json-1.1"
    )


@contextmanager
def serve_moto(region: str) -> Iterator[Service]:
    """A server on a free port of this machine while the context lasts."""
    service = Service(region)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, service, threaded=True)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
