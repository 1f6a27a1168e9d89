"""A Lambda function that asks a SageMaker endpoint about a picture. One file; Pillow is packed beside it.

It takes, whichever service calls it:

    {"image": "<base64>"}, or the base64 alone         Lambda Invoke
    {"body": ..., "isBase64Encoded": true}             API Gateway and function URLs: the picture as the body,
                                                       or any of these forms as JSON
    {"Records": [{"s3": ...}]}                         S3 events, one or several
    {"url": "https://..."}, {"s3": "s3://..."}         from places that ALLOW_URLS and ALLOW_S3 begin with

and answers {"predictions": [{"label", "probability"}, ...]}, or {"error": {"code", "message", "hint"}}. A
picture larger than the endpoint takes is shrunk first; it is classified at a few hundred pixels anyway.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image, ImageOps

logger = logging.getLogger("kennel")
logger.setLevel(logging.INFO)

MAX_PAYLOAD_BYTES = int(os.environ.get("MAX_PAYLOAD_BYTES", 6 * 1024 * 1024))
MAX_SOURCE_BYTES = 64 * 1024 * 1024  # of a picture fetched by url or from S3, before it is shrunk
TOP = 5
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.2
RESERVE_SECONDS = 2.0  # left at the end to answer in good order
RETRIED = {
    "ThrottlingException",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "InternalFailure",
    "InternalDependencyException",
}
SIDES = (4096, 2048, 1024, 512)  # tried in turn, in pixels of the longer side


class Fault(Exception):
    """What is answered instead of a prediction."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, "hint": hint}}


def handle(event: Any, context: Any) -> Any:
    """Lambda's entry. A proxy event gets a status code and a body, any other the answer itself."""
    started = time.monotonic()
    proxy = isinstance(event, dict) and "isBase64Encoded" in event
    try:
        status, answer = 200, answer_event(event, seconds_left(context))
    except Fault as fault:
        status, answer = fault.status, fault.body
    milliseconds = 1000 * (time.monotonic() - started)
    code = answer.get("error", {}).get("code", "") if isinstance(answer, dict) else ""
    logger.info("status=%d code=%s milliseconds=%.0f", status, code, milliseconds)
    if proxy:
        headers = {"Content-Type": "application/json"}
        return {"statusCode": status, "headers": headers, "body": json.dumps(answer)}
    return answer


def answer_event(event: Any, left: Callable[[], float]) -> dict[str, Any]:
    """One answer, or for an S3 event one for each record, a failed one not spoiling the others."""
    if not (isinstance(event, dict) and "Records" in event):
        return ask_endpoint(fit(read_picture(event)), left)
    answers = []
    for record in event["Records"]:
        uri = _record_uri(record)
        try:
            answers.append({"s3": uri, **ask_endpoint(fit(read_s3(uri)), left)})
        except Fault as fault:
            answers.append({"s3": uri, **fault.body})
    return {"answers": answers}


def read_picture(event: Any) -> bytes:
    """The bytes of the picture that an event holds or names."""
    if isinstance(event, str):
        return decode_base64(event)
    if not isinstance(event, dict):
        raise _unknown_event(f"it is {type(event).__name__}, not an object")
    if "isBase64Encoded" in event:
        return read_proxy_body(event)
    for key, read in (("image", decode_base64), ("url", read_url), ("s3", read_s3)):
        if isinstance(event.get(key), str):
            return read(event[key])
    raise _unknown_event(f"its keys are {', '.join(sorted(map(str, event)))[:200] or 'none'}")


def read_proxy_body(event: dict[str, Any]) -> bytes:
    """API Gateway's and function URLs' form: binary bodies come as base64, JSON as text."""
    body = event.get("body") or ""
    raw = decode_base64(body) if event["isBase64Encoded"] else body.encode()
    if raw.lstrip()[:1] not in (b"{", b'"'):
        if event["isBase64Encoded"]:
            return raw
        raise Fault(
            400,
            "not_binary",
            "The body reached Lambda as text, which destroys a picture.",
            "List image/* among the API's binary media types, or send {'image': base64} as JSON.",
        )
    try:
        inner = json.loads(raw)
    except ValueError:
        raise Fault(400, "not_json", "The body begins like JSON, but is none.", "") from None
    if isinstance(inner, dict) and "isBase64Encoded" in inner:
        raise _unknown_event("it is an event inside an event")
    return read_picture(inner)


def decode_base64(text: str) -> bytes:
    """Plain, or as a data: URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault(400, "not_base64", "The picture is not valid base64.", "Encode its bytes.") from None


def read_url(url: str) -> bytes:
    """An https address that begins with an allowed one; a redirect may not leave it."""
    _check_allowed(url, "ALLOW_URLS", "url")
    try:
        with _opener().open(url, timeout=10) as response:
            return _read_limited(response)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Fault(
            422, "unreachable", f"The address gives no picture: {error}.", "Try it yourself."
        ) from None


def read_s3(uri: str) -> bytes:
    """s3://bucket/key, where the bucket and folder are allowed."""
    _check_allowed(uri, "ALLOW_S3", "s3")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        return _read_limited(_client("s3").get_object(Bucket=bucket, Key=key)["Body"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        hint = "Check the key, and the folder in the recipe's allow_s3."
        raise Fault(422, "unreadable", f"S3 does not give the object ({code}).", hint) from None


def fit(picture: bytes) -> bytes:
    """The picture as it is, or smaller where the endpoint would refuse it. Orientation is kept."""
    if not picture:
        raise Fault(400, "empty", "The picture has no bytes.", "Send the file's content.")
    if len(picture) <= MAX_PAYLOAD_BYTES:
        return picture
    try:
        image = Image.open(io.BytesIO(picture))
        image.draft("RGB", (SIDES[0], SIDES[0]))  # decodes a JPEG at a fraction of its size
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, Image.DecompressionBombError, ValueError) as error:
        raise Fault(400, "not_a_picture", f"The bytes are no picture ({error}).", "") from None
    for side in SIDES:
        smaller = upright.copy()
        smaller.thumbnail((side, side))
        buffer = io.BytesIO()
        smaller.save(buffer, "JPEG", quality=92)
        if buffer.tell() <= MAX_PAYLOAD_BYTES:
            logger.info("shrunk_from_bytes=%d to_bytes=%d", len(picture), buffer.tell())
            return buffer.getvalue()
    raise Fault(
        413, "too_large", f"The picture has {len(picture)} bytes, also when shrunk.", "Send it smaller."
    )


def ask_endpoint(picture: bytes, left: Callable[[], float]) -> dict[str, Any]:
    """The endpoint's answer; what may pass is tried again after a random pause while there is time."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            response = _client("sagemaker-runtime").invoke_endpoint(
                EndpointName=os.environ["ENDPOINT_NAME"],
                ContentType="application/x-image",
                Accept=f"application/json; top={TOP}",
                Body=picture,
            )
            answer: dict[str, Any] = json.loads(response["Body"].read())
            return answer
        except ClientError as error:
            pause = random.uniform(0, FIRST_PAUSE_SECONDS * 2**attempt)
            if not may_pass(error) or attempt == ATTEMPTS or left() < pause + RESERVE_SECONDS:
                raise translate(error) from None
            logger.info("retry=%d code=%s", attempt, error.response["Error"]["Code"])
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def may_pass(error: ClientError) -> bool:
    """Throttling, a start in progress, an overloaded container: the same request may work soon."""
    code = error.response["Error"]["Code"]
    if code == "ModelError":
        return error.response.get("OriginalStatusCode") in (429, 503)
    return code in RETRIED


def translate(error: ClientError) -> Fault:
    """The container's own 4xx goes through; anything else is ours, and its details stay in the log."""
    response = error.response
    code, status = response["Error"]["Code"], response.get("OriginalStatusCode", 0)
    if code == "ModelError" and 400 <= status < 500 and status != 429:
        try:
            own = json.loads(response.get("OriginalMessage", ""))["error"]
            return Fault(status, own["code"], own["message"], own.get("hint", ""))
        except (ValueError, KeyError, TypeError):
            return Fault(status, "refused", "The endpoint refused the picture.", "")
    logger.error("code=%s original_status=%s", code, status)
    busy = may_pass(error)
    hint = "Try again in a moment." if busy else "The operator finds the reason in the endpoint's log."
    return Fault(503 if busy else 502, "endpoint_failed", f"The endpoint did not answer ({code}).", hint)


def seconds_left(context: Any) -> Callable[[], float]:
    """How long Lambda lets this call go on."""
    if not hasattr(context, "get_remaining_time_in_millis"):
        return lambda: 60.0
    return lambda: context.get_remaining_time_in_millis() / 1000


def _check_allowed(uri: str, variable: str, key: str) -> None:
    """Prefixes end with a slash, so that https://a.example/ does not allow https://a.example.evil/."""
    prefixes = json.loads(os.environ.get(variable) or "[]")
    normal = urllib.parse.unquote(uri)
    inside = any(uri.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
    if not inside or "/../" in normal or "@" in urllib.parse.urlsplit(uri).netloc:
        allowed = ", ".join(prefixes) or "none"
        raise Fault(
            403, "not_allowed", f"This {key} is outside what the function may read.", f"Allowed: {allowed}"
        )


class _SameRules(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the function may read anyway."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_allowed(newurl, "ALLOW_URLS", "url")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SameRules)


def _read_limited(stream: Any) -> bytes:
    content: bytes = stream.read(MAX_SOURCE_BYTES + 1)
    if len(content) > MAX_SOURCE_BYTES:
        raise Fault(
            413, "too_large", f"The picture has more than {MAX_SOURCE_BYTES} bytes.", "Send it smaller."
        )
    return content


def _record_uri(record: Any) -> str:
    try:
        source = record["s3"]
        return f"s3://{source['bucket']['name']}/{urllib.parse.unquote_plus(source['object']['key'])}"
    except (KeyError, TypeError):
        raise _unknown_event("a record is not from S3") from None


def _unknown_event(why: str) -> Fault:
    hint = "Send {'image': base64}, {'url': ...}, {'s3': ...}, an API Gateway event or an S3 event."
    return Fault(400, "unknown_event", f"This is no event the function knows: {why}.", hint)


@cache
def _client(service: str) -> Any:
    """An answer may take the endpoint 60 seconds; the retries are this file's own."""
    config = Config(connect_timeout=5, read_timeout=70, retries={"total_max_attempts": 1})
    return boto3.client(service, config=config)
