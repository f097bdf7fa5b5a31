"""Anthropic's messages (/v1/messages) as vLLM reads and writes them: a request is made into a chat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from workers.engines.echo_model.answer_json import Drafted
from workers.engines.echo_model.answering import prompts_of
from workers.engines.echo_model.request import Chat
from workers.engines.echo_model.vocabulary import count

Fields = dict[str, Any]
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class _Message(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: str | list[Fields]


class _Tool(BaseModel):
    name: str
    input_schema: Fields


class _ToolChoice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _Conversation(BaseModel):
    model: str
    messages: list[_Message]
    system: str | list[Fields] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None

    def messages_of_chat(self) -> list[Fields]:
        """Return the messages of the chat that it is."""
        head = [{"role": "system", "content": _content(self.system)}] if self.system else []
        return [*head, *({"role": part.role, "content": _content(part.content)} for part in self.messages)]


class MessageRequest(_Conversation):
    """A request to /v1/messages."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def as_chat(self) -> Chat:
        """Return the chat that it is."""
        choice = self.tool_choice
        named = {"function": {"name": choice.name}} if choice and choice.type == "tool" else None
        tools = [
            {"type": "function", "function": {"name": tool.name, "parameters": tool.input_schema}}
            for tool in self.tools or ()
        ]
        return Chat.model_validate(
            {
                "model": self.model,
                "messages": self.messages_of_chat(),
                "max_tokens": self.max_tokens,
                "stop": self.stop_sequences,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": self.top_k,
                "tools": tools or None,
                "tool_choice": named or (_CHOICES[choice.type] if choice else None),
            }
        )


class MessageJson:
    """Writes one message, as a whole or in events."""

    def __init__(self, request: MessageRequest, drafted: Drafted) -> None:
        (self._draft,), self._call, self._model = drafted.choices, drafted.call, request.model
        self.prompts = drafted.prompts
        self.prompt_tokens = sum(drafted.prompt_tokens)
        self.completion_tokens = self.steps = len(self._draft.tokens)
        self._id = f"chatcmpl-{time.time_ns():x}"

    def whole(self) -> bytes:
        """Return the message that is not streamed."""
        block = self._block("".join(self._draft.texts))
        if self._call:
            block["input"] = json.loads("".join(self._draft.texts))
        end = {name: value for name, value in self._reasons().items() if value is not None}
        message = {"id": self._id, "type": "message", "role": "assistant", "content": [block], "model": self._model}
        return msgspec.json.encode(message | end | {"usage": self._usage(self.completion_tokens)})

    def step(self, at: int) -> bytes:
        """Return the events of one token."""
        begin = self._begin() if at == 0 else ()
        end = self._end() if at == self.steps - 1 else ()
        return b"".join(map(_event, [*begin, *self._delta(self._draft.texts[at]), *end]))

    def _begin(self) -> Iterator[Fields]:
        message: Fields = {"id": self._id, "type": "message", "role": "assistant", "content": [], "model": self._model}
        more = {"stop_reason": None, "stop_sequence": None, "usage": self._usage(0)}
        yield {"type": "message_start", "message": message | more}
        yield {"type": "content_block_start", "index": 0, "content_block": self._block("")}

    def _delta(self, text: str) -> Iterator[Fields]:
        kind = (
            {"type": "input_json_delta", "partial_json": text} if self._call else {"type": "text_delta", "text": text}
        )
        if text:
            yield {"type": "content_block_delta", "index": 0, "delta": kind}

    def _end(self) -> Iterator[Fields]:
        yield {"type": "content_block_stop", "index": 0}
        usage = self._usage(self.completion_tokens)
        yield {"type": "message_delta", "delta": self._reasons(), "usage": usage}
        yield {"type": "message_stop"}

    def _block(self, text: str) -> Fields:
        if self._call:
            return {"type": "tool_use", "id": f"toolu_{self._id[9:]}", "name": self._call.name, "input": {}}
        return {"type": "text", "text": text}

    def _reasons(self) -> Fields:
        draft = self._draft
        if draft.finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if draft.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": draft.stop_reason}
        return {"stop_reason": "tool_use" if self._call else "end_turn", "stop_sequence": None}

    def _usage(self, written: int) -> Fields:
        return {"input_tokens": self.prompt_tokens, "output_tokens": written}


def count_tokens(body: bytes, context: int) -> bytes:
    """Answer /v1/messages/count_tokens: as many as the usage of a message counts."""
    del context
    request = _Conversation.model_validate_json(body)
    chat = Chat.model_validate({"model": request.model, "messages": request.messages_of_chat()})
    tokens = count("\n".join(prompts_of(chat)))
    return msgspec.json.encode({"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}})


def _event(event: Fields) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def _content(content: str | list[Fields]) -> str | list[Fields]:
    return content if isinstance(content, str) else [part for block in content for part in _parts(block)]


def _parts(block: Fields) -> list[Fields]:
    """Return what a block of content is in a chat."""
    kind = block.get("type")
    if kind == "tool_result":
        inner = block.get("content") or ""
        return [{"type": "text", "text": inner}] if isinstance(inner, str) else [p for b in inner for p in _parts(b)]
    if kind == "tool_use":
        return [{"type": "text", "text": json.dumps(block.get("input"))}]
    if kind in ("image", "document"):
        return [{"type": "image_url"}]
    return [block]
