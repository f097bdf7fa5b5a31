"""The OpenAPI document of a table of routes, with one intake's models, tiers and limits filled in."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from pydantic import BaseModel

from bitladder.queue.json_views.problem import Error
from bitladder.settings.sections import Settings
from dispatcher.auth import Requirement
from dispatcher.http.error_shapes import AnthropicError
from dispatcher.openai.models import listed_names
from dispatcher.routes.answer_headers import headers_json
from dispatcher.routes.error_answers import ERRORS, EVERYWHERE, PREFIXES, WITH_KEY, errors_json
from dispatcher.routes.operation import BYTES, EVENTS, JSONL, Answer, Content, Operation
from dispatcher.routes.parameters import IN_PATHS, PARAMETERS

_INFO = {
    "title": "bitladder",
    "version": version("bitladder"),
    "summary": "One LLM at several precisions: each request on the cheapest one that answers it well and in time.",
    "description": "OpenAI's chat, completions, responses, embeddings, files, batches and webhooks, and the engine's "
    "other routes: awaited, streamed or in the background. Errors have OpenAI's shape, those of Anthropic's routes "
    "have Anthropic's. Every answer of a route carries X-Request-Id.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
_TAGS = {
    "inference": "Ask a model.",
    "responses": "Ask with items, now or in the background; continue what is stored.",
    "jobs": "Ask now, read later.",
    "files": "What batches read and write.",
    "batches": "Files of requests, run in the background.",
    "webhooks": "Be told what has ended.",
    "models": "What may be asked for.",
    "dead_letters": "Jobs that ended because something is wrong with them or with the service.",
    "operating": "For operators and their tools.",
}
_KEY = "An API key, where the intake requires one. It has a tenant and scopes: submit, read, ops:read, ops:write."
_KEY_HEADERS = ("api-key", "x-api-key")
_SCHEMAS = "#/components/schemas/"
_TEXTS = {
    BYTES: {"type": "string", "format": "binary"},
    JSONL: {"description": "Lines with an object of JSON each."},
    EVENTS: {"description": "Server-sent events, each with a chunk of the answer as JSON in `data`."},
}


def document(settings: Settings, operations: tuple[Operation, ...]) -> dict[str, Any]:
    """Return the OpenAPI document of an intake with these settings."""
    parameters = {name: parameter.as_json() for name, parameter in PARAMETERS.items()}
    parameters["WaitQuery"]["schema"]["maximum"] = settings.intake.max_wait_s
    return {
        "openapi": "3.1.1",
        "info": _INFO,
        "servers": [{"url": settings.intake.root_path or "/"}],
        "security": [*({name: []} for name in ("key", *_KEY_HEADERS)), {}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": _paths(operations),
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": _KEY},
                **{
                    name: {"type": "apiKey", "in": "header", "name": name, "description": _KEY} for name in _KEY_HEADERS
                },
            },
            "parameters": _plain(parameters),
            "headers": _plain(headers_json()),
            "responses": errors_json(settings),
            "schemas": _schemas(operations) | _names(settings),
        },
    }


@cache
def _paths(operations: tuple[Operation, ...]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    is_public = operation.requires is Requirement.PUBLIC
    in_path = [name for part, name in IN_PATHS.items() if part in operation.path]
    errors = (*EVERYWHERE, *(() if is_public else WITH_KEY), *operation.errors)
    answers = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    shape = PREFIXES[operation.error_shape]
    answers |= {str(ERRORS[name].status): {"$ref": f"#/components/responses/{shape}{name}"} for name in errors}
    shown: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            {"$ref": f"#/components/parameters/{name}"} for name in (*in_path, *operation.parameters, "RequestId")
        ],
        "responses": dict(sorted(answers.items())),
    }
    if description := _description(operation):
        shown["description"] = description
    if operation.body:
        shown["requestBody"] = {"required": True, "content": _content(operation.body)}
    return shown | {"security": []} if is_public else shown


def _description(operation: Operation) -> str:
    requirements = {Requirement.PUBLIC: "", Requirement.ANY_KEY: "Any key."}
    required = requirements.get(operation.requires, f"Scope `{operation.requires.value}`.")
    return f"{required} {operation.description}".strip()


def _answer(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "description": answer.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *answer.headers)},
        "content": {media: body for content in answer.content for media, body in _content(content).items()},
    }
    if answer.links:
        job_id = {"job_id": "$response.body#/id"}
        shown["links"] = {name: {"operationId": goal, "parameters": job_id} for name, goal in answer.links.items()}
    return shown


def _content(content: Content) -> dict[str, Any]:
    kinds = [{"$ref": f"{_SCHEMAS}{kind.__name__}"} for kind in content.kinds]
    text = _TEXTS.get(content.media_type, {"type": "string"})
    shown: dict[str, Any] = {"schema": {"anyOf": kinds} if len(kinds) > 1 else (kinds or [text])[0]}
    if content.examples:
        shown["examples"] = {name: {"value": value} for name, value in content.examples.items()}
    return {content.media_type: shown}


def _names(settings: Settings) -> dict[str, Any]:
    """Return the names that are configured, as enumerations."""
    tiers = dict.fromkeys(tier for model in settings.models.values() for tier in model.ladder)
    models = {"type": "string", "enum": listed_names(settings), "description": "The models of this intake."}
    names = {"type": "string", "enum": list(tiers), "description": "The tiers of this intake's models."}
    return {"ModelName": models, "TierName": names}


@cache
def _schemas(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """Return the schemas of all bodies, and of what they are made of."""
    read = [kind for operation in operations if operation.body for kind in operation.body.kinds]
    answers = [answer for operation in operations for answer in operation.answers.values()]
    written = [kind for answer in answers for content in answer.content for kind in content.kinds]
    settings_models: dict[str, Any] = {}

    def settings_schema(kind: type) -> dict[str, Any]:
        if not issubclass(kind, BaseModel):
            raise NotImplementedError(kind.__name__)
        schema = kind.model_json_schema(mode="serialization", ref_template=_SCHEMAS + "{model}")
        settings_models.update(schema.pop("$defs", {}) | {kind.__name__: schema})
        return {"$ref": _SCHEMAS + kind.__name__}

    template = _SCHEMAS + "{name}"
    _, schemas = msgspec.json.schema_components(
        [*read, *written, Error, AnthropicError], schema_hook=settings_schema, ref_template=template
    )
    schemas |= settings_models
    _, in_bodies = msgspec.json.schema_components(read, schema_hook=settings_schema, ref_template=template)
    for name, schema in schemas.items():
        if name not in in_bodies:
            _require_defaults(schema)
    plain: dict[str, Any] = _plain(schemas)
    return plain


def _plain(schema: Any) -> Any:  # noqa: ANN401  (JSON)
    """Return a schema as code generators read it: a type beside an `enum`, no items that are `false`."""
    if isinstance(schema, list | tuple):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(part) for name, part in schema.items()}
    if plain.get("items") is False:  # of tuples, whose items here all have one type
        (plain["items"], *_) = plain.pop("prefixItems")
    kinds = {type(value) for value in plain.get("enum", ())}
    for kind, name in ((str, "string"), (bool, "boolean")):
        if kinds == {kind}:
            plain.setdefault("type", name)
    return plain


def _require_defaults(schema: dict[str, Any]) -> None:
    """Name the fields with a default as required: they are always written."""
    fields = schema.get("properties", {})
    with_default = [name for name, field in fields.items() if "default" in field]
    for name in with_default:
        del fields[name]["default"]
    if with_default:
        schema["required"] = [*schema["required"], *with_default]
