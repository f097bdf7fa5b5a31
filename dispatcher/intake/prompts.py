"""What the intake reads of a body: enough to route it. The rest passes through as it came."""

from __future__ import annotations

from typing import Any

import msgspec

from dispatcher.contract import Endpoint
from dispatcher.errors import RequestError


class _Body(msgspec.Struct, frozen=True):
    model: str
    stream: bool | None = None


class CompletionBody(_Body, frozen=True, kw_only=True):
    """The fields of POST /v1/completions that bitladder reads."""

    prompt: str | list[str | int | list[int]]


class ChatBody(_Body, frozen=True, kw_only=True):
    """The fields of POST /v1/chat/completions that bitladder reads."""

    messages: list[dict[str, Any]]


Body = CompletionBody | ChatBody
_DECODERS: dict[Endpoint, msgspec.json.Decoder[CompletionBody] | msgspec.json.Decoder[ChatBody]] = {
    Endpoint.COMPLETIONS: msgspec.json.Decoder(CompletionBody),
    Endpoint.CHAT: msgspec.json.Decoder(ChatBody),
}


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_body(endpoint: Endpoint, body: bytes) -> Body:
    """Check the fields that routing needs.

    Raises:
        RequestError: not JSON, or a field is missing or of another type; `param` names it.

    """
    try:
        read = _DECODERS[endpoint].decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is wrong: {error}", param=_param(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error
    if isinstance(read, ChatBody):
        if not read.messages:
            raise RequestError("the body is wrong: 'messages' must not be empty", param="messages")
    elif not _is_prompt(read.prompt):
        raise RequestError(
            "the body is wrong: 'prompt' must be a string, or a list of strings or of token ids",
            param="prompt",
        )
    return read


def has_messages(body: bytes) -> bool:
    """Tell a chat body by its field; a body that is no JSON object is told by its reader."""
    try:
        return "messages" in _fields(body)
    except (msgspec.DecodeError, RecursionError):
        return False


def prompt_bytes(body: Body) -> bytes:
    """Return the text that is scored, in UTF-8; token ids count as the text of their digits."""
    if isinstance(body, CompletionBody):
        parts = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        return "\n".join(part if isinstance(part, str) else str(part) for part in parts).encode()
    return "\n".join(text for message in body.messages for text in _texts(message.get("content"))).encode()


def _is_prompt(prompt: object) -> bool:
    if isinstance(prompt, str):
        return True
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(part, str | int | list) for part in prompt)


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return [text for text in parts if isinstance(text, str)]
    return []


def _param(message: str) -> str | None:
    """Msgspec says where as `$.messages[0]`, or names a missing field in backticks."""
    if " - at `$." in message:
        return message.rpartition(" - at `$.")[2].rstrip("`")
    if "required field `" in message:
        return message.partition("required field `")[2].partition("`")[0]
    return None
