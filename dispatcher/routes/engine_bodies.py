"""What an engine is asked and answers, as far as /openapi.json describes it: bodies pass through as they come."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from bitladder.endpoints import Endpoint
from bitladder.queue.json_views.kinds import Count, ModelName
from bitladder.routing.body import MAX_MESSAGES, MAX_PROMPTS
from bitladder.routing.notes import MAX_VALUE_CHARS

# What the tiers of the example serve; an engine refuses more than its model has.
MAX_TOKENS = 2048
_TOKEN = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_PROMPT = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": _TOKEN},
        {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": {"type": "array", "items": _TOKEN}},
    ]
}

MaxTokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Temperature = Annotated[float, Meta(ge=0, le=2)]


ServiceTier = Annotated[
    Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"],
    Meta(description="OpenAI's name of the lane. The engine does not see it; the answer says which one was used."),
]


class Provider(Struct, frozen=True, kw_only=True):
    """OpenRouter's preferences; the engine does not see them."""

    quantizations: (
        Annotated[
            list[str],
            Meta(min_length=1, description="The only tiers that may serve it: names of tiers, or of precisions."),
        ]
        | None
    ) = None


Metadata = Annotated[
    dict[str, Annotated[str, Meta(max_length=MAX_VALUE_CHARS)]],
    Meta(description="Up to 16 names and texts, which the job shows again."),
]


class CompletionRequest(Struct, frozen=True, kw_only=True):
    """OpenAI's completion request; fields that are not named here pass through to the engine."""

    model: ModelName
    prompt: Annotated[Any, Meta(extra_json_schema=_PROMPT)]
    stream: bool | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    service_tier: ServiceTier | None = None
    provider: Provider | None = None
    metadata: Metadata | None = None


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: str | UnsetType = UNSET
    content: str | list[dict[str, Any]] | UnsetType | None = UNSET


class ChatRequest(Struct, frozen=True, kw_only=True):
    """OpenAI's chat request; fields that are not named here pass through to the engine."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    service_tier: ServiceTier | None = None
    provider: Provider | None = None
    metadata: Metadata | None = None


def camel(name: str) -> str:
    """Return the name of a row as OpenAPI's operations are called."""
    first, *others = name.lower().split("_")
    return first + "".join(other.title() for other in others)


def request_type(endpoint: Endpoint) -> type[Struct]:
    """Return what a route takes, as far as its row says it."""
    row = endpoint.row
    fields: list[Any] = [("model", ModelName)]
    fields += [(name, Any | UnsetType, UNSET) for name in (*row.prompt, *row.media)]
    fields += [(name, MaxTokens | None, None) for name in row.limits]
    fields += [("stream", bool | None, None)] if endpoint.streams else []
    fields += [("service_tier", ServiceTier | None, None), ("provider", Provider | None, None)]
    fields += [("metadata", dict[str, Any] | None, None)]
    return _struct(f"{_pascal(endpoint)}Request", f"A request to {endpoint}.", fields)


def reply_type(endpoint: Endpoint) -> type[Struct]:
    """Return what a route answers, as far as its row says it."""
    fields: list[Any] = [(endpoint.row.answer, Any), ("usage", dict[str, Any] | UnsetType | None, UNSET)]
    return _struct(f"{_pascal(endpoint)}Reply", f"The engine's answer at {endpoint}.", fields)


def _pascal(endpoint: Endpoint) -> str:
    name = camel(endpoint.name)
    return name[:1].upper() + name[1:]


def _struct(name: str, does: str, fields: list[Any]) -> type[Struct]:
    return defstruct(name, fields, frozen=True, kw_only=True, namespace={"__doc__": does})


class TokenCounts(Struct, frozen=True, kw_only=True):
    """Tokens of an answer, as the engine counted them."""

    prompt_tokens: Count | UnsetType = UNSET
    completion_tokens: Count | UnsetType = UNSET
    total_tokens: Count | UnsetType = UNSET


class _Reply(Struct, frozen=True, kw_only=True):
    id: str
    created: int
    model: str
    usage: TokenCounts | UnsetType = UNSET


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One continuation of a prompt."""

    index: int
    text: str
    finish_reason: str | None


class Completion(_Reply, frozen=True, kw_only=True):
    """The engine's answer."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ReplyMessage(Struct, frozen=True, kw_only=True):
    """The message that the model wrote."""

    role: str
    content: str | None


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer to a conversation."""

    index: int
    message: ReplyMessage
    finish_reason: str | None


class ChatCompletion(_Reply, frozen=True, kw_only=True):
    """The engine's answer."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Document(Struct, frozen=True, kw_only=True):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
