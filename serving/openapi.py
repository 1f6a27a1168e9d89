"""The server's own description, which GET /openapi.json answers: OpenAPI 3.1, built of plain values.

What it promises is tested against the running server by schemathesis (tests/integration/test_openapi.py).
"""

from __future__ import annotations

from typing import Any

from serving.messages import CSV, CUSTOM_ATTRIBUTES, JSON, JSON_LINES, MULTIPART, NPY

Schema = dict[str, Any]

PICTURE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/*",
    "application/x-image",
    "application/octet-stream",
)
BINARY: Schema = {}  # OpenAPI 3.1 leaves the schema of raw bytes empty
REFUSALS = {
    "400": "The body or a value is wrong: not a picture, a broken one, a bad `top`, not JSON.",
    "406": "Accept asks for what is not offered.",
    "408": "The body did not arrive in time.",
    "413": "Too many bytes, pixels or pictures.",
    "415": "The Content-Type is not one of these, or the picture is of a kind that is not opened.",
    "422": "The picture behind an allowed address could not be had.",
    "500": "The server's fault; the log says more.",
    "503": "Too busy, or not ready; Retry-After says when.",
}


def build_openapi(version: str = "1.0") -> Schema:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kennel",
            "version": version,
            "description": "An image classifier behind Amazon SageMaker's container contract.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/ping": {"get": _ping("ping"), "post": _ping("pingByPost")},
            "/invocations": {"post": _invocations()},
            "/execution-parameters": {"get": _execution_parameters()},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _openapi_json()},
        },
        "components": {"schemas": _schemas()},
    }


def _ping(operation: str) -> Schema:
    return {
        "operationId": operation,
        "summary": "Whether the model is loaded and answers as it should.",
        "responses": {
            "200": {
                "description": "It does.",
                "headers": {"X-Kennel-Precision": {"schema": {"type": "string"}}},
            },
            "503": {
                "description": "It does not, or not yet.",
                "content": {JSON: {"schema": {"type": "object"}}},
            },
        },
    }


def _invocations() -> Schema:
    return {
        "operationId": "predict",
        "summary": "Predict one picture, or many.",
        "description": "The bytes decide what a picture is, whatever its content type says. Of many pictures "
        "a bad one gets an error in its place.",
        "parameters": [
            {
                "name": CUSTOM_ATTRIBUTES,
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "`top=5` answers with the five likeliest labels.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                **{content_type: {"schema": BINARY} for content_type in (*PICTURE_TYPES, NPY)},
                JSON: {"schema": _reference("Request")},
                JSON_LINES: {"schema": {"type": "string"}},
                MULTIPART: {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                        },
                    }
                },
            },
        },
        "responses": {
            "200": {
                "description": "Log-probabilities in label order, or with `top` labels and probabilities.",
                "headers": {CUSTOM_ATTRIBUTES: {"schema": {"type": "string"}}},
                "content": {
                    JSON: {"schema": _reference("Answer")},
                    JSON_LINES: {"schema": {"type": "string"}},
                    CSV: {"schema": {"type": "string"}},
                    NPY: {"schema": BINARY},
                },
            },
            **{status: _refusal(meaning) for status, meaning in REFUSALS.items()},
        },
    }


def _execution_parameters() -> Schema:
    return {
        "operationId": "executionParameters",
        "summary": "What Batch Transform asks before the first record.",
        "responses": {
            "200": {
                "description": "As it expects them.",
                "content": {JSON: {"schema": _reference("Parameters")}},
            }
        },
    }


def _metrics() -> Schema:
    return {
        "operationId": "metrics",
        "summary": "Counters and latencies in Prometheus' text format.",
        "responses": {"200": {"description": "Of all processes.", "content": {"text/plain": {"schema": {}}}}},
    }


def _openapi_json() -> Schema:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {JSON: {"schema": {"type": "object"}}}}
        },
    }


def _refusal(meaning: str) -> Schema:
    return {"description": meaning, "content": {JSON: {"schema": _reference("Error")}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Schema:
    row = {"type": "array", "items": {"type": "number", "maximum": 1e-3}}
    picture = {
        "oneOf": [
            {"type": "string", "contentEncoding": "base64"},
            {
                "type": "object",
                "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
                "required": ["b64"],
            },
            {
                "type": "object",
                "properties": {"url": {"type": "string"}},
                "required": ["url"],
                "not": {"required": ["b64"]},
            },
        ]
    }
    return {
        "Request": {
            "type": "object",
            "properties": {"instances": {"type": "array", "minItems": 1, "items": picture}},
            "required": ["instances"],
        },
        "Ranked": _object(
            predictions={
                "type": "array",
                "items": _object(
                    label={"type": "string"}, probability={"type": "number", "minimum": 0, "maximum": 1.001}
                ),
            }
        ),
        "Answer": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"anyOf": [row, _reference("Ranked"), _reference("Error")]},
                },
                _reference("Ranked"),
            ]
        },
        "Error": _object(error=_object(**{name: {"type": "string"} for name in ("code", "message", "hint")})),
        "Parameters": _object(
            MaxConcurrentTransforms={"type": "integer", "minimum": 1},
            BatchStrategy={"enum": ["SINGLE_RECORD", "MULTI_RECORD"]},
            MaxPayloadInMB={"type": "integer", "minimum": 0, "maximum": 100},
        ),
    }


def _object(**properties: Schema) -> Schema:
    """With exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
