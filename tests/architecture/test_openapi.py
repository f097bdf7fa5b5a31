"""The published document describes what there is, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from dispatcher.app import routes
from dispatcher.openai.openapi import document
from tests.conftest import make_settings

SETTINGS = make_settings("redis://127.0.0.1:1/0", intake__max_wait_s=7, intake__max_body_bytes=2048)
DOCUMENT = document(SETTINGS)
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS]


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Follow one reference."""
    if "$ref" not in part:
        return part
    found: Any = DOCUMENT
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def test_the_document_is_valid_openapi_31() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_route_is_described_and_no_other() -> None:
    there = {(route.path, method.lower()) for route in routes() for method in route.methods or ()}
    # Starlette answers HEAD where it answers GET.
    there = {(path, method) for path, method in there if method != "head"}

    assert set(OPERATIONS) == there


def test_operations_have_names_of_their_own() -> None:
    names = [operation(path, method)["operationId"] for path, method in OPERATIONS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_has_openais_shape_and_an_example(path: str, method: str) -> None:
    for status, response in operation(path, method)["responses"].items():
        if status >= "400":
            content = resolved(response)["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Error"}
            assert content["examples"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_routes_for_keys_say_what_becomes_of_those_without(path: str, method: str) -> None:
    route = next(route for route in routes() if route.path == path and method.upper() in (route.methods or ()))
    is_guarded = operation(path, method).get("security") != []

    assert is_guarded == bool(route.app.__class__.__name__ == "AuthMiddleware")
    assert is_guarded == ({"401", "403", "429"} <= set(operation(path, method)["responses"]))


def test_models_tiers_and_limits_are_those_of_the_settings() -> None:
    parts = DOCUMENT["components"]

    assert parts["schemas"]["ModelName"]["enum"] == ["smollm2"]
    assert parts["schemas"]["TierName"]["enum"] == ["int4", "int8", "fp8"]
    assert parts["parameters"]["WaitQuery"]["schema"]["maximum"] == 7
    assert "2048" in parts["responses"]["TooLarge"]["description"]
