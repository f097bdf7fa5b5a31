"""The request as vLLM reads it: the same fields with the same types. Fields that change nothing here are left out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

_INT64 = 2**63
_TokenId = Annotated[int, Field(ge=0)]
Prompt = list[_TokenId] | list[list[_TokenId]] | str | list[str]


class _StreamOptions(BaseModel):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _JsonSchema(BaseModel):
    content: dict[str, Any] | None = Field(None, alias="schema")


class _ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: _JsonSchema | None = None


class StructuredOutputs(BaseModel):
    """The form of an answer, in vLLM's own field: one of these."""

    json_schema: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None


class _Function(BaseModel):
    name: str
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    type: Literal["function"] = "function"
    function: _Function


class _Message(BaseModel):
    role: str
    content: str | list[Any] | None = None


class Request(BaseModel):
    """What both endpoints take."""

    model: str | None = None
    n: int | None = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    include_stop_str_in_output: bool = False
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    response_format: _ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None


class Completion(Request):
    """A request to /v1/completions."""

    prompt: Prompt | None = None
    n: int = 1
    echo: bool | None = False
    suffix: str | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None


class Chat(Request):
    """A request to /v1/chat/completions."""

    messages: list[_Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[_Tool] | None = None
    tool_choice: Any = None
