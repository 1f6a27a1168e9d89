"""An image registry over plain HTTP: what it keeps under a tag, byte for byte, with docker's own logins.

The standard library only, as image_check.py, which judges what is read here.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES = (
    DOCKER_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
DOCKER_HUB = "docker.io"
RESPONSE_TIMEOUT_SECONDS = 60


class ImageError(RuntimeError):
    """An image or registry that cannot be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """HOST/REPOSITORY:TAG, taken apart."""

    host: str
    repository: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a registry keeps under a tag, and the digest of those very bytes."""

    media_type: str
    digest: str
    body: Mapping[str, Any]

    @property
    def config_digest(self) -> str:
        """Empty for an index, which names several images and no config."""
        return str(self.body.get("config", {}).get("digest", ""))

    @property
    def compressed_bytes(self) -> int:
        """What an instance downloads."""
        return sum(layer["size"] for layer in self.body.get("layers", ()))


def parse_reference(text: str) -> Reference:
    """HOST[:PORT]/REPOSITORY:TAG; without a host it is Docker Hub's, as for `docker push`."""
    found = re.fullmatch(r"(?:((?:[^/]*[.:][^/]*|localhost))/)?([a-z0-9][a-z0-9._/-]*):([\w.-]{1,128})", text)
    if not found:
        raise ImageError(f"{text!r} is no image reference; write HOST/REPOSITORY:TAG in lower case.")
    host, repository, tag = found.groups()
    return Reference(host=host or DOCKER_HUB, repository=repository, tag=tag)


def download_manifest(reference: Reference) -> Manifest | None:
    """What the registry keeps under the tag, untranslated; None when there is nothing."""
    answer = _download(reference, f"manifests/{reference.tag}", accept=", ".join(MANIFEST_TYPES))
    if answer is None:
        return None
    headers, content = answer
    body = json.loads(content)
    return Manifest(
        media_type=body.get("mediaType") or headers.get("Content-Type", "").split(";")[0],
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        body=body,
    )


def download_config(reference: Reference, manifest: Manifest) -> dict[str, Any]:
    """The image config a manifest names; {} for an index."""
    if not manifest.config_digest:
        return {}
    answer = _download(reference, f"blobs/{manifest.config_digest}", accept="*/*")
    if answer is None or f"sha256:{hashlib.sha256(answer[1]).hexdigest()}" != manifest.config_digest:
        raise ImageError(
            f"The config {manifest.config_digest} of {reference} is missing or damaged; push again."
        )
    config: dict[str, Any] = json.loads(answer[1])
    return config


def _download(
    reference: Reference, path: str, *, accept: str
) -> tuple[http.client.HTTPMessage, bytes] | None:
    """One GET of the registry's HTTP API, with the login that it asks for; None for 404."""
    local = re.match(r"(localhost|127\.[\d.]+)(:\d+)?$", reference.host)  # docker's own rule for plain http
    host = "registry-1.docker.io" if reference.host == DOCKER_HUB else reference.host
    url = f"{'http' if local else 'https'}://{host}/v2/{reference.repository}/{path}"
    try:
        try:
            return _get(url, accept=accept, ca_of=reference.host)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.UNAUTHORIZED:
                raise
            challenge = error.headers.get("WWW-Authenticate", "")
        authorization = _answer_challenge(challenge, reference)
        return _get(url, accept=accept, ca_of=reference.host, authorization=authorization)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND:
            return None
        raise ImageError(
            f"{url} answered {error.code} {error.reason}; log in with `docker login {reference.host}`."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise ImageError(f"{url} cannot be reached ({error}); check the registry and the network.") from error


def _answer_challenge(challenge: str, reference: Reference) -> str:
    """The Authorization header for a 401: the login itself, or the token it buys (Docker Hub, GitHub)."""
    login = read_login(reference.host)
    basic = f"Basic {login}" if login else ""
    if not challenge.lower().startswith("bearer"):
        return basic
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
    _, content = _get(f"{asked['realm']}?{query}", accept="application/json", ca_of="", authorization=basic)
    token = json.loads(content)
    return f"Bearer {token.get('token') or token['access_token']}"


def _get(
    url: str, *, accept: str, ca_of: str, authorization: str = ""
) -> tuple[http.client.HTTPMessage, bytes]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    if authorization:
        # Not sent on after a redirect: ECR sends blobs to S3, which refuses a second login.
        request.add_unredirected_header("Authorization", authorization)
    context = ssl.create_default_context()
    for folder in (Path("/etc/docker/certs.d"), Path.home() / ".docker/certs.d"):  # where docker itself looks
        for certificate in sorted((folder / ca_of).glob("*.crt")) if ca_of else ():
            context.load_verify_locations(certificate)
    with urllib.request.urlopen(request, timeout=RESPONSE_TIMEOUT_SECONDS, context=context) as response:
        return response.headers, response.read()


def read_login(host: str) -> str:
    """base64(user:password) as `docker login` left it, or REGISTRY_AUTH; empty where there is none."""
    if os.environ.get("REGISTRY_AUTH"):
        return os.environ["REGISTRY_AUTH"]
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (FileNotFoundError, ValueError):
        return ""
    server = "https://index.docker.io/v1/" if host == DOCKER_HUB else host
    helper = config.get("credHelpers", {}).get(server) or config.get("credsStore")
    if not helper:
        return str(config.get("auths", {}).get(server, {}).get("auth", ""))
    command = [f"docker-credential-{helper}", "get"]
    done = subprocess.run(command, input=server, capture_output=True, text=True, check=False)
    if done.returncode:
        return ""
    found = json.loads(done.stdout)
    return base64.b64encode(f"{found['Username']}:{found['Secret']}".encode()).decode()
