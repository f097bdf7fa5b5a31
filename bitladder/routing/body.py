"""The fields of a request's body that routing needs. The body itself passes through to the engine byte for byte."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np

from bitladder.contract import Endpoint
from bitladder.errors import RequestError


class _Body(msgspec.Struct, frozen=True):
    model: str
    stream: bool | None = None
    max_tokens: Any = None  # what is wrong here, the engine says
    service_tier: str | None = None  # this and the next one are for us, and the engine does not see them
    provider: dict[str, Any] | None = None


class CompletionBody(_Body, frozen=True, kw_only=True):
    """The fields of POST /v1/completions that bitladder reads."""

    prompt: str | list[str | int | list[int]]


class ChatBody(_Body, frozen=True, kw_only=True):
    """The fields of POST /v1/chat/completions that bitladder reads."""

    messages: list[dict[str, Any]]
    max_completion_tokens: Any = None


Body = CompletionBody | ChatBody
_DECODERS: dict[Endpoint, msgspec.json.Decoder[CompletionBody] | msgspec.json.Decoder[ChatBody]] = {
    Endpoint.COMPLETIONS: msgspec.json.Decoder(CompletionBody),
    Endpoint.CHAT: msgspec.json.Decoder(ChatBody),
}


# As many as OpenAI takes: each one costs intake, queue and engine memory and time.
MAX_PROMPTS = 2048
MAX_MESSAGES = 2048
# Schemas of tools and answers are far flatter. Deeper bodies could overflow the stack of a parser behind the intake.
MAX_DEPTH = 64
# More tokens than any answer has; what JSON can say beyond is no number to reckon with.
_MAX_COUNT = 2**53
_BRACKETS_AND_QUOTES = b'[]{}"'
_OTHERS = bytes(set(range(256)) - set(_BRACKETS_AND_QUOTES))
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_body(endpoint: Endpoint, body: bytes) -> Body:
    """Check the fields that routing needs.

    Raises:
        RequestError: not JSON, or a field is missing or of another type; `param` names it.

    """
    try:
        body.decode()  # msgspec does not check the text of fields that it skips, but the engine will
        read = _DECODERS[endpoint].decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is wrong: {error}", param=_param(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error
    if isinstance(read, ChatBody):
        _check_messages(read.messages)
    else:
        _check_prompt(read.prompt)
    if _depth_of(body) > MAX_DEPTH:
        raise RequestError(f"the body is wrong: lists and objects must be nested at most {MAX_DEPTH} deep")
    return read


def _depth_of(body: bytes) -> int:
    """Return how deep lists and objects of valid JSON are nested; up to MAX_DEPTH it may be an upper bound."""
    brackets_opened = body.count(b"[") + body.count(b"{")
    if brackets_opened <= MAX_DEPTH:
        return brackets_opened
    # Once escaped quotes are removed, every second part between quotes is outside of strings.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _OTHERS)
    brackets = np.frombuffer(b"".join(plain.split(b'"')[::2]), np.uint8)
    return int(_STEPS[brackets].cumsum().max(initial=0))


def has_messages(body: bytes) -> bool:
    """Return whether this is the body of a chat. A body that is no JSON object is refused later, by read_body."""
    try:
        return "messages" in _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def for_engine(raw: bytes, body: Body, model: str) -> bytes:
    """Return the body as the engine gets it, which knows the model by this name alone.

    Most bodies stay as their client wrote them; in the others the values of all other fields do.
    """
    if body.model == model and body.service_tier is None and body.provider is None:
        return raw
    fields = _fields(raw)
    fields.pop("service_tier", None)
    fields.pop("provider", None)
    return msgspec.json.encode(fields | {"model": model})


def with_field(raw: bytes, name: str, value: str) -> bytes:
    """Return a JSON object with one field set, and all others as they were; what is no object stays as it is."""
    try:
        return msgspec.json.encode(_fields(raw) | {name: value})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw


def max_tokens(body: Body) -> int | None:
    """Return how many tokens each choice of the answer may have; None: the request does not say."""
    newer = body.max_completion_tokens if isinstance(body, ChatBody) else None
    limit = body.max_tokens if newer is None else newer
    return limit if type(limit) is int and 0 <= limit <= _MAX_COUNT else None


def prompt_bytes(body: Body) -> bytes:
    """Return the text that is scored, in UTF-8. Token ids are scored as the text of their digits."""
    if isinstance(body, CompletionBody):
        parts = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        return "\n".join(part if isinstance(part, str) else str(part) for part in parts).encode()
    return "\n".join(text for message in body.messages for text in _texts(message.get("content"))).encode()


def prefix_of(body: Body, raw: bytes, tenant: str, count: int) -> str:
    """Return what a request shares with those that have the same beginning, of so many bytes; '' where it is shorter.

    A client may name it instead: with OpenAI's `prompt_cache_key`, or `continuation_id`.
    """
    fields = _fields(raw)
    named = next((bytes(fields[name]) for name in ("prompt_cache_key", "continuation_id") if name in fields), b"null")
    start = named if named != b"null" else prompt_bytes(body)[:count]
    is_short = named == b"null" and len(start) < count
    return "" if is_short else hashlib.sha256(tenant.encode() + b"\0" + start).hexdigest()[:32]


def _check_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise RequestError("the body is wrong: 'messages' must not be empty", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(
            f"the body is wrong: 'messages' must be at most {MAX_MESSAGES}, got {len(messages)}", param="messages"
        )


def _check_prompt(prompt: str | list[str | int | list[int]]) -> None:
    if isinstance(prompt, str):
        return
    if not prompt:
        raise RequestError(
            "the body is wrong: 'prompt' must be a string, or a list of strings or of token ids", param="prompt"
        )
    if len(prompt) > MAX_PROMPTS and set(map(type, prompt)) != {int}:  # token ids are one prompt
        raise RequestError(
            f"the body is wrong: 'prompt' must be at most {MAX_PROMPTS} prompts, got {len(prompt)}", param="prompt"
        )


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return [text for text in parts if isinstance(text, str)]
    return []


def _param(message: str) -> str | None:
    """Return the field that an error of msgspec's names: as `$.messages[0]`, or in backticks where it is missing."""
    if " - at `$." in message:
        return message.rpartition(" - at `$.")[2].rstrip("`")
    if "required field `" in message:
        return message.partition("required field `")[2].partition("`")[0]
    return None
