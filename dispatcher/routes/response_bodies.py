"""What /v1/responses is asked and answers, as far as /openapi.json describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from bitladder.queue.json_views.kinds import Count, ModelName
from dispatcher.openai.responses.create_options import BackgroundOptions
from dispatcher.routes.engine_bodies import MaxTokens, ServiceTier, Temperature

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
_INPUT = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object"}}]}
_EARLIER = "Of a stored response: its input and output go before the input of this one."
_STORE = "Whether it is found by its id later; true where it is not there."


class ResponseRequest(Struct, frozen=True, kw_only=True):
    """OpenAI's request for a response; fields that are not named here pass through to the engine."""

    model: ModelName
    input: Annotated[Any, Meta(extra_json_schema=_INPUT)]
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    store: Annotated[bool, Meta(description=_STORE)] | None = None
    previous_response_id: Annotated[str, Meta(description=_EARLIER)] | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    service_tier: ServiceTier | None = None


class ResponseError(Struct, frozen=True, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Tokens of a response."""

    input_tokens: Count
    output_tokens: Count
    total_tokens: Count
    input_tokens_details: dict[str, Any]
    output_tokens_details: dict[str, Any]


class ResponseResource(Struct, frozen=True, kw_only=True):
    """A response, with all fields that the Open Responses schema requires, and those that the engine adds."""

    id: str
    object: Literal["response"]
    created_at: Count
    completed_at: Count | None
    status: Status
    incomplete_details: dict[str, Any] | None
    model: str
    previous_response_id: str | None
    instructions: str | list[dict[str, Any]] | None
    output: list[dict[str, Any]]
    error: ResponseError | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: str
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: Count
    temperature: float
    reasoning: dict[str, Any] | None
    user: str | None
    usage: ResponseUsage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, Any]
    safety_identifier: str | None
    prompt_cache_key: str | None
