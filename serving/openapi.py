"""The server's own description, which GET /openapi.json answers: OpenAPI 3.1, built of plain values.

What it promises is tested against the running server by schemathesis (tests/integration/test_openapi.py).
"""

from __future__ import annotations

from typing import Any

from serving.messages import CSV, CUSTOM_ATTRIBUTES, JSON, JSON_LINES, MULTIPART, NPY, PNG, TIMING

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
    "422": "An allowed address gave no picture, or the artifact cannot explain or abstain.",
    "500": "The server's fault; the log says more.",
    "503": "Too busy, or not ready; Retry-After says when.",
}


def build_openapi(version: str = "1.0", *, has_page: bool = True) -> Schema:
    """The whole document; without the page where KENNEL_PAGE is 0."""
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
            **(_page() if has_page else {}),
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
                "description": "`top=5` answers with the five likeliest labels; `explain=cam` adds a heat "
                "map of one picture; `abstain=0.05` calibrates, and says when to abstain at that risk.",
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
                "headers": {name: {"schema": {"type": "string"}} for name in (CUSTOM_ATTRIBUTES, TIMING)},
                "content": {
                    JSON: {"schema": _reference("Answer")},
                    JSON_LINES: {"schema": {"type": "string"}},
                    CSV: {"schema": {"type": "string"}},
                    NPY: {"schema": BINARY},
                    PNG: {"schema": BINARY},
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


def _page() -> dict[str, Schema]:
    card = {"type": "object", "required": ["architecture", "labels", "metrics", "precision", "created"]}
    return {
        "/": {
            "get": {
                "operationId": "page",
                "summary": "The try-it page.",
                "responses": {"200": {"description": "HTML.", "content": {"text/html": {"schema": {}}}}},
            }
        },
        "/model.json": {
            "get": {
                "operationId": "modelCard",
                "summary": "What is served: architecture, labels, metrics, precision, training date.",
                "responses": {
                    "200": {"description": "The card.", "content": {JSON: {"schema": card}}},
                    "503": {
                        "description": "Not loaded yet.",
                        "content": {JSON: {"schema": {"type": "object"}}},
                    },
                },
            }
        },
    }


def _refusal(meaning: str) -> Schema:
    return {"description": meaning, "content": {JSON: {"schema": _reference("Error")}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Schema:
    ranked = [_reference("Ranked"), _reference("Judged")]
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
        "Ranked": _ranked({}),
        "Explained": _ranked({"explanation": _explanation()}),
        "Judged": _ranked(
            {
                "abstain": {"type": "boolean"},
                "reason": {"enum": [None, "unsure", "out_of_distribution"]},
                "out_of_distribution": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            }
        ),
        "Answer": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"anyOf": [row, *ranked, _reference("Error")]},
                },
                *ranked,
                _reference("Explained"),
            ]
        },
        "Error": _object(error=_object(**{name: {"type": "string"} for name in ("code", "message", "hint")})),
        "Parameters": _object(
            MaxConcurrentTransforms={"type": "integer", "minimum": 1},
            BatchStrategy={"enum": ["SINGLE_RECORD", "MULTI_RECORD"]},
            MaxPayloadInMB={"type": "integer", "minimum": 0, "maximum": 100},
        ),
    }


def _ranked(more: Schema) -> Schema:
    """Labels and probabilities, likeliest first, and `more`."""
    prediction = _object(
        label={"type": "string"}, probability={"type": "number", "minimum": 0, "maximum": 1.001}
    )
    return _object(predictions={"type": "array", "items": prediction}, **more)


def _explanation() -> Schema:
    row = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
    return _object(
        method={"enum": ["cam"]},
        label={"type": "string"},
        map={"type": "array", "items": row},
        image={"type": "string", "contentEncoding": "base64"},
    )


def _object(**properties: Schema) -> Schema:
    """With exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
