"""The published document describes what there is, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from bitladder.endpoints import Endpoint
from bitladder.routing.body import KINDS
from dispatcher.routes import table
from dispatcher.routes.document import document
from dispatcher.routes.engine_bodies import ChatRequest, CompletionRequest
from tests.conftest import make_settings

SETTINGS = make_settings("redis://127.0.0.1:1/0", intake__max_wait_s=7, intake__max_body_bytes=2048)
DOCUMENT = document(SETTINGS, table.OPERATIONS)
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS]


def operation(path: str, method: str) -> dict[str, Any]:
    described: dict[str, Any] = DOCUMENT["paths"][path][method]
    return described


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Follow one reference."""
    if "$ref" not in part:
        return part
    target: Any = DOCUMENT
    for step in part["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return dict(target)


def test_the_document_is_valid_openapi_31() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_route_is_described_and_no_other() -> None:
    there = {(route.path, method.lower()) for route in table.routes() for method in route.methods or ()}
    # Starlette answers HEAD where it answers GET.
    there = {(path, method) for path, method in there if method != "head"}

    assert set(OPERATIONS) == there


def test_operations_have_names_of_their_own() -> None:
    names = [operation(path, method)["operationId"] for path, method in OPERATIONS]

    assert len(set(names)) == len(names)


def parts(part: object) -> Iterator[dict[str, Any]]:
    """Yield all objects of the document."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from parts(inner)


def test_code_generators_can_read_it() -> None:
    names = DOCUMENT["components"]["schemas"]
    plain = {name.strip("_").lower() for name in names}
    described = [operation(path, method) for path, method in OPERATIONS]
    summaries = [shown["summary"] for shown in described if "501" not in shown["responses"]]

    assert (len(plain), [name for name in names if not name[0].isupper()]) == (len(names), [])
    assert len(set(summaries)) == len(summaries)
    assert [part for part in parts(DOCUMENT) if part.get("items") is False] == []
    assert [part for part in parts(DOCUMENT) if isinstance(part.get("enum"), list) and "type" not in part] == []


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_has_the_shape_of_its_route_and_an_example(path: str, method: str) -> None:
    shape = "AnthropicError" if path.startswith("/v1/messages") else "Error"

    for status, response in operation(path, method)["responses"].items():
        if status >= "400":
            content = resolved(response)["content"]["application/json"]
            assert content["schema"] == {"$ref": f"#/components/schemas/{shape}"}
            assert content["examples"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_routes_for_keys_say_what_becomes_of_those_without(path: str, method: str) -> None:
    route = next(route for route in table.routes() if route.path == path and method.upper() in (route.methods or ()))
    is_guarded = operation(path, method).get("security") != []

    assert is_guarded == bool(route.app.__class__.__name__ == "AuthMiddleware")
    assert is_guarded == ({"401", "403", "429"} <= set(operation(path, method)["responses"]))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_example_fits_its_schema(path: str, method: str) -> None:
    described = operation(path, method)
    bodies = [resolved(response)["content"] for response in described["responses"].values()]
    bodies += [described["requestBody"]["content"]] if "requestBody" in described else []

    for body in bodies:
        content = body.get("application/json", {})
        for example in content.get("examples", {}).values():
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            Draft202012Validator(schema).validate(example["value"])


def test_every_field_that_routing_reads_of_a_body_is_described() -> None:
    assert set(KINDS[Endpoint.COMPLETIONS].__struct_fields__) <= set(CompletionRequest.__struct_fields__)
    assert set(KINDS[Endpoint.CHAT].__struct_fields__) <= set(ChatRequest.__struct_fields__)


def test_every_reference_leads_somewhere() -> None:
    def references(part: Any) -> Iterator[str]:  # noqa: ANN401  (any part of the document)
        if isinstance(part, dict):
            yield from [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            yield from (name for inner in part.values() for name in references(inner))
        if isinstance(part, list):
            yield from (name for inner in part for name in references(inner))

    names = set(references(DOCUMENT))

    assert len(names) > 50
    assert [name for name in names if not resolved({"$ref": name})] == []


def test_what_is_always_written_is_required_and_what_is_read_is_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    assert {"id", "object", "created", "parent", "published"} <= set(schemas["Model"]["required"])
    assert set(schemas["Published"]["required"]) == {"version", "digest", "measured", "recovery"}
    assert "tier" not in schemas["Job"]["required"]
    assert schemas["DeadLetterSelection"]["required"] == []


def test_models_tiers_and_limits_are_those_of_the_settings() -> None:
    parts = DOCUMENT["components"]

    assert parts["schemas"]["ModelName"]["enum"] == ["smollm2", "smollm2:int4", "smollm2:int8", "smollm2:fp8"]
    assert parts["schemas"]["TierName"]["enum"] == ["int4", "int8", "fp8"]
    assert parts["parameters"]["WaitQuery"]["schema"]["maximum"] == 7
    assert "2048" in parts["responses"]["TooLarge"]["description"]
