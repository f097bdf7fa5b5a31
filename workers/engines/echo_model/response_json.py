"""Responses (/v1/responses) as vLLM reads and writes them: a request is made into a chat, its draft into items."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from workers.engines.echo_model.answer_json import Drafted
from workers.engines.echo_model.refusal import RefusedError
from workers.engines.echo_model.request import Chat

Fields = dict[str, Any]
# Fields that come back as they were sent, and what they are otherwise.
_KEPT: Fields = {
    "instructions": None,
    "metadata": None,
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "background": False,
    "max_tool_calls": None,
    "previous_response_id": None,
    "prompt": None,
    "reasoning": None,
    "service_tier": "auto",
    "text": None,
    "top_logprobs": None,
    "truncation": "disabled",
    "user": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_OF_A_TOOL = dict.fromkeys(("allowed_callers", "async", "defer_loading", "description", "output_schema", "strict"))
_OF_A_CALL = dict.fromkeys(("async", "caller"))
_UNUSED = dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages"))


class ResponseRequest(BaseModel):
    """A request to /v1/responses."""

    model: str | None = None
    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Fields] = Field(default_factory=list)
    tool_choice: str | Fields = "auto"
    text: Fields | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = True
    background: bool | None = False
    max_tool_calls: int | None = None
    previous_response_id: str | None = None
    reasoning: Fields | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None
    ignore_eos: bool = False
    stop: str | list[str] | None = None

    def as_chat(self) -> Chat:
        """Return the chat that it is.

        Raises:
            RefusedError: an item of its input is none that a model of text can read.

        """
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        head = [{"role": "system", "content": self.instructions}] if self.instructions else []
        choice = self.tool_choice
        return Chat.model_validate(
            {
                "model": self.model,
                "messages": [*head, *map(_message, items)],
                "max_tokens": self.max_output_tokens,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "stop": self.stop,
                "ignore_eos": self.ignore_eos,
                "tools": [_tool(tool) for tool in self.tools] or None,
                "tool_choice": {"function": choice} if isinstance(choice, dict) else choice if self.tools else None,
                "response_format": _format((self.text or {}).get("format")),
            }
        )


class ResponseJson:
    """Writes one response, as a whole or in events."""

    def __init__(self, request: ResponseRequest, drafted: Drafted) -> None:
        (self._draft,), self._call, self._request = drafted.choices, drafted.call, request
        self.prompts = drafted.prompts
        self.prompt_tokens = sum(drafted.prompt_tokens)
        self.completion_tokens = self.steps = len(self._draft.tokens)
        self._item_id = f"{'fc' if self._call else 'msg'}_{secrets.token_hex(16)}"
        self._head = {"id": f"resp_{secrets.token_hex(16)}", "created_at": int(time.time())}
        self._number = 0

    def whole(self) -> bytes:
        """Return the response that is not streamed."""
        return msgspec.json.encode(self._response("completed"))

    def step(self, at: int) -> bytes:
        """Return the events of one token."""
        events = [{"delta": self._draft.texts[at]}] if self._draft.texts[at] else []
        is_last = at == self.steps - 1
        parts = [*(self._begin() if at == 0 else ()), *map(self._delta, events), *(self._end() if is_last else ())]
        return b"".join(map(self._event, parts))

    def _begin(self) -> Iterator[Fields]:
        for name in ("created", "in_progress"):
            yield {"type": f"response.{name}", "response": self._response("in_progress")}
        yield {"type": "response.output_item.added", "output_index": 0, "item": self._item("in_progress")}
        if not self._call:
            yield {"type": "response.content_part.added", **self._place(), "part": self._part("")}

    def _delta(self, delta: Fields) -> Fields:
        if self._call:
            return {"type": "response.function_call_arguments.delta", **self._place(), **delta}
        return {"type": "response.output_text.delta", **self._place(), "logprobs": [], **delta}

    def _end(self) -> Iterator[Fields]:
        text = "".join(self._draft.texts)
        if self._call:
            name = self._call.name
            yield {"type": "response.function_call_arguments.done", **self._place(), "arguments": text, "name": name}
        else:
            yield {"type": "response.output_text.done", **self._place(), "text": text, "logprobs": []}
            yield {"type": "response.content_part.done", **self._place(), "part": self._part(text)}
        yield {"type": "response.output_item.done", "output_index": 0, "item": self._item("completed")}
        yield {"type": "response.completed", "response": self._response("completed")}

    def _place(self) -> Fields:
        place = {"item_id": self._item_id, "output_index": 0}
        return place if self._call else place | {"content_index": 0}

    def _event(self, event: Fields) -> bytes:
        numbered = event | {"sequence_number": self._number}
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), msgspec.json.encode(numbered))

    def _response(self, status: str) -> Fields:
        sent = {name: value for name in _KEPT if (value := getattr(self._request, name, None)) is not None}
        sent["tools"] = [_OF_A_TOOL | tool for tool in self._request.tools]
        is_cut, is_over = self._draft.finish_reason == "length", status == "completed"
        return (
            self._head
            | {"object": "response", "model": self._request.model or "", **_KEPT, **sent, **_UNUSED}
            | {
                "status": "incomplete" if is_cut and is_over else status,
                "incomplete_details": {"reason": "max_output_tokens"} if is_cut and is_over else None,
                "max_output_tokens": self._request.max_output_tokens,
                "output": [self._item("completed")] if is_over else [],
                "usage": self._usage() if is_over else None,
            }
        )

    def _item(self, status: str) -> Fields:
        text = "".join(self._draft.texts) if status == "completed" else ""
        if self._call:
            call = {"type": "function_call", "call_id": f"call_{self._item_id[3:19]}", "name": self._call.name}
            return call | {"id": self._item_id, "arguments": text, "status": status, "namespace": None} | _OF_A_CALL
        content = [self._part(text)] if text else []
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "status": status,
            "phase": None,
        }

    @staticmethod
    def _part(text: str) -> Fields:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": None if text else []}

    def _usage(self) -> Fields:
        read, written = self.prompt_tokens, self.completion_tokens
        return {
            "input_tokens": read,
            "input_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": written,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": read + written,
        }


def _message(item: object) -> Fields:
    """Return the message of a chat that an item of the input is."""
    if isinstance(item, dict):
        kind = item.get("type", "message")
        if kind == "message" and "role" in item:
            return {"role": item["role"], "content": item.get("content")}
        if kind == "function_call":
            return {"role": "assistant", "content": None}
        if kind == "function_call_output":
            return {"role": "tool", "content": item.get("output")}
        if kind == "reasoning":
            return {"role": "assistant", "content": None}
    raise RefusedError("An item of the input must be a message, a function call, its output or a reasoning.", "input")


def _tool(tool: Fields) -> Fields:
    if tool.get("type") != "function":
        raise RefusedError(f"The echo engine calls tools of the type 'function', got {tool.get('type')!r}.", "tools")
    return {"type": "function", "function": {"name": tool.get("name"), "parameters": tool.get("parameters")}}


def _format(form: Fields | None) -> Fields | None:
    if form is None or form.get("type") == "text":
        return None
    return {"type": form.get("type"), "json_schema": {"schema": form.get("schema")}}
