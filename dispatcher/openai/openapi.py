"""GET /openapi.json: the document of every route, with this intake's models, tiers and limits filled in."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.settings.sections import Settings
from dispatcher.responses import Response, json_response
from dispatcher.state import intake_state

# What any route may answer, by the names of the document's responses; and what only those may that ask for a key.
_EVERYWHERE = {
    "400": "BadRequest",
    "405": "MethodNotAllowed",
    "408": "RequestTimeout",
    "431": "HeadersTooLarge",
    "503": "Unavailable",
}
_WITH_KEY = {"401": "Unauthorized", "403": "Forbidden", "429": "TooMany"}


async def get_openapi(request: HttpRequest) -> Response:
    """Show the document."""
    return json_response(document(intake_state(request).settings))


def document(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document of an intake with these settings."""
    doc: dict[str, Any] = msgspec.json.decode(_source())
    parts = doc["components"]
    doc["servers"] = [{"url": settings.intake.root_path or "/"}]
    doc["info"]["version"] = version("bitladder")
    parts["schemas"]["ModelName"]["enum"] = list(settings.models)
    tiers = dict.fromkeys(tier for model in settings.models.values() for tier in model.ladder)
    parts["schemas"]["TierName"]["enum"] = list(tiers)
    parts["parameters"]["WaitQuery"]["schema"]["maximum"] = settings.intake.max_wait_s
    size = f"The body is larger than {settings.intake.max_body_bytes} bytes ([intake].max_body_bytes)."
    parts["responses"]["TooLarge"]["description"] = size
    for item in doc["paths"].values():
        for key, operation in item.items():
            if key != "parameters":  # those that the item's operations share
                _add_errors(operation)
    return doc


def _add_errors(operation: dict[str, Any]) -> None:
    is_open = operation.get("security") == []
    names = _EVERYWHERE if is_open else _EVERYWHERE | _WITH_KEY
    common = {status: {"$ref": f"#/components/responses/{name}"} for status, name in names.items()}
    operation["responses"] = dict(sorted((common | operation["responses"]).items()))


@cache
def _source() -> bytes:
    return (files("dispatcher.openai") / "openapi.json").read_bytes()
