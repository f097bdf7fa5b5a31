"""The fields of a request's body that routing needs. The body itself passes through to the engine byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Any, ClassVar

import msgspec
import numpy as np

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError


class Body(msgspec.Struct, frozen=True):
    """The fields that bitladder reads of every body; those of its endpoint's row come to them."""

    endpoint: ClassVar[Endpoint]
    # Of its row, read for every request.
    prompt_fields: ClassVar[tuple[str, ...]]
    limit_fields: ClassVar[tuple[str, ...]]

    model: str
    stream: bool | None = None
    service_tier: str | None = None  # this and the next one are for us, and the engine does not see them
    provider: dict[str, Any] | None = None
    metadata: Any = None  # what is wrong here, notes.py says

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes token by token."""
        return bool(self.stream and self.endpoint.streams)


# Of all other fields the engine says what is wrong with them.
_CHECKED: dict[Endpoint, dict[str, Any]] = {
    Endpoint.COMPLETIONS: {"prompt": str | list[str | int | list[int]]},
    Endpoint.CHAT: {"messages": list[dict[str, Any]]},
}


def _kind(endpoint: Endpoint) -> type[Body]:
    """Return what a body of a route is read as."""
    row, checked = endpoint.row, _CHECKED.get(endpoint, {})
    names = dict.fromkeys((*row.prompt, *row.media, *row.limits))
    fields: list[Any] = [(name, checked[name]) if name in checked else (name, Any, None) for name in names]
    name = f"{endpoint.name.title()}Body"
    kind: type[Body] = msgspec.defstruct(name, fields, bases=(Body,), frozen=True, kw_only=True)  # type: ignore[assignment]
    kind.endpoint, kind.prompt_fields, kind.limit_fields = endpoint, row.prompt, row.limits
    return kind


KINDS = {endpoint: _kind(endpoint) for endpoint in Endpoint}
_DECODERS = {endpoint: msgspec.json.Decoder(kind) for endpoint, kind in KINDS.items()}


# As many as OpenAI takes: each one costs intake, queue and engine memory and time.
MAX_PROMPTS = 2048
MAX_MESSAGES = 2048
# Schemas of tools and answers are far flatter. Deeper bodies could overflow the stack of a parser behind the intake.
MAX_DEPTH = 64
# More tokens than any answer has; what JSON can say beyond is no number to reckon with.
_MAX_COUNT = 2**53
# Where messages, parts of their content and results of tools have text. A picture's base64 is in other fields.
_WITH_TEXT = ("content", "text", "output")
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
        raise RequestError(f"the body is wrong: {error}", param=param_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error
    _check_prompt(read)
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


def endpoint_for(names: Container[str]) -> Endpoint:
    """Return the route that a body is for, by the names of its fields, where nobody has named it.

    Raises:
        RequestError: several routes take such a body.

    """
    if "messages" in names:
        return Endpoint.CHAT
    if "input" in names and "prompt" not in names:
        raise RequestError(
            f"the body may be for {Endpoint.RESPONSES} or for {Endpoint.EMBEDDINGS}: name the route, as "
            f"'?endpoint={Endpoint.RESPONSES}'",
            param="endpoint",
        )
    return Endpoint.COMPLETIONS


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a body; none of one that is no JSON object, which read_body refuses later."""
    try:
        return _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


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


def with_field(raw: bytes, name: str, value: str | int) -> bytes:
    """Return a JSON object with one field set, and all others as they were; what is no object stays as it is."""
    try:
        return msgspec.json.encode(_fields(raw) | {name: value})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw


def max_tokens(body: Body) -> int | None:
    """Return how many tokens each choice of the answer may have: 0 where none is generated; None: it does not say."""
    limit: Any = None if body.limit_fields else 0
    for name in body.limit_fields:
        if (limit := getattr(body, name)) is not None:
            break
    return limit if type(limit) is int and 0 <= limit <= _MAX_COUNT else None


def prompt_bytes(body: Body) -> bytes:
    """Return the text that is scored, in UTF-8. Token ids are scored as the text of their digits; pictures are not."""
    texts: list[str] = []
    for name in body.prompt_fields:
        if type(value := getattr(body, name)) is str:
            texts.append(value)
        else:
            _add_texts(value, texts)
    return "\n".join(texts).encode()


def turns_of(body: Body) -> int:
    """Return how many messages a conversation has; 1 for any other prompt."""
    messages = getattr(body, "messages", None)
    return len(messages) if body.endpoint.row.is_chat and isinstance(messages, list) else 1


def prefix_of(body: Body, raw: bytes, tenant: str, count: int, continuation_id: str = "") -> str:
    """Return what a request shares with those that have the same beginning, of so many bytes; '' where it is shorter.

    A client may name it instead: with OpenAI's `prompt_cache_key`, or `continuation_id` (also of `background_options`).
    """
    fields = _fields(raw)
    fields = fields_of(bytes(fields.get("background_options", b"{}"))) | fields
    named = next((bytes(fields[name]) for name in ("prompt_cache_key", "continuation_id") if name in fields), b"null")
    if continuation_id:
        named = msgspec.json.encode(continuation_id)
    start = named if named != b"null" else prompt_bytes(body)[:count]
    is_short = named == b"null" and len(start) < count
    return "" if is_short else hashlib.sha256(tenant.encode() + b"\0" + start).hexdigest()[:32]


def _check_prompt(body: Body) -> None:
    is_there = not body.prompt_fields
    for name in body.prompt_fields:
        if (value := getattr(body, name)) is not None:
            is_there = True
            if type(value) is list:
                _check_list(name, value)
    if not is_there and all(getattr(body, name) is None for name in body.endpoint.row.media):
        names = " or ".join(repr(name) for name in (*body.prompt_fields, *body.endpoint.row.media))
        raise RequestError(f"the body is wrong: {body.endpoint} needs {names}", param=body.prompt_fields[0])


def _check_list(name: str, value: list[object]) -> None:
    if not value:
        raise RequestError(f"the body is wrong: {name!r} must not be empty", param=name)
    if len(value) > MAX_PROMPTS and set(map(type, value)) != {int}:  # token ids are one prompt
        raise RequestError(f"the body is wrong: {name!r} must be at most {MAX_PROMPTS}, got {len(value)}", param=name)


def _add_texts(value: object, texts: list[str]) -> None:
    """Add the texts of a prompt: of strings, of messages and of parts of their content."""
    if type(value) is dict:
        _add_content(value, texts)
    elif type(value) is list:
        for part in value:
            if type(part) is dict:
                _add_content(part, texts)
            elif type(part) is list and not all(type(item) is int for item in part):
                _add_texts(part, texts)
            else:  # a text, a token's id, or the ids of one of several prompts
                texts.append(str(part))
    elif value is not None:
        texts.append(str(value))


def _add_content(part: dict[str, object], texts: list[str]) -> None:
    for name in _WITH_TEXT:
        if (text := part.get(name)) is not None:
            if type(text) is str:
                texts.append(text)
            else:
                _add_texts(text, texts)


def param_of(message: str) -> str | None:
    """Return the field that an error of msgspec's names: as `$.messages[0]`, or in backticks where it is missing."""
    if " - at `$." in message:
        return message.rpartition(" - at `$.")[2].rstrip("`")
    if "required field `" in message:
        return message.partition("required field `")[2].partition("`")[0]
    return None
