"""One prediction request as each server wants it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent, again and again."""

    path: str
    method: str = "POST"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def raw_request(path: str, picture: bytes) -> Request:
    """The JPEG is the body."""
    return Request(path=path, body=picture, headers={"Content-Type": "image/jpeg"})


def base64_request(path: str, picture: bytes) -> Request:
    """The JPEG in JSON."""
    return _json_request(path, {"image": base64.b64encode(picture).decode()})


def v2_request(path: str, picture: bytes) -> Request:
    """The JPEG in the Open Inference (V2) protocol's JSON."""
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(picture).decode()],
    }
    return _json_request(path, {"inputs": [tensor]})


BuildRequest = Callable[[str, bytes], Request]


def _json_request(path: str, content: object) -> Request:
    body = json.dumps(content).encode()
    return Request(path=path, body=body, headers={"Content-Type": "application/json"})
