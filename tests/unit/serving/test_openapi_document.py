"""The document is valid OpenAPI 3.1 and names what the server takes and gives."""

from __future__ import annotations

from openapi_schema_validator import OAS31Validator

from serving.codec import ANSWER_TYPES, STRUCTURED_TYPES
from serving.messages import PNG
from serving.openapi import build_openapi


def test_document_names_every_content_type_of_request_and_answer() -> None:
    post = build_openapi()["paths"]["/invocations"]["post"]

    assert set(STRUCTURED_TYPES) <= set(post["requestBody"]["content"])
    assert {*ANSWER_TYPES, PNG} == set(post["responses"]["200"]["content"])


def test_document_has_every_route_and_unique_operations() -> None:
    paths = build_openapi()["paths"]
    operations = [operation["operationId"] for methods in paths.values() for operation in methods.values()]

    routes = ["/ping", "/invocations", "/execution-parameters", "/metrics", "/openapi.json"]
    assert list(paths) == [*routes, "/", "/model.json"]
    assert list(build_openapi(has_page=False)["paths"]) == routes
    assert len(set(operations)) == len(operations) == 8


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere() -> None:
    document = build_openapi()
    schemas = document["components"]["schemas"]

    for schema in schemas.values():
        OAS31Validator.check_schema(schema)
    references = {
        part.split('"')[0] for part in str(document).replace("'", '"').split("#/components/schemas/")[1:]
    }
    assert references == set(schemas)
