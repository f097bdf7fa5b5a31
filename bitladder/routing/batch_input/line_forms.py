"""What one line of batch input says: a request in OpenAI's form, or a prompt or a chat alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from bitladder.errors import RequestError

# Of a custom_id: what OpenAI takes, and far more than an id needs.
MAX_CUSTOM_ID = 512
# Of the beginning of a prompt that has no system message: so much in common makes it worth to run them together.
_PREFIX_BYTES = 256
_SYSTEM_ROLES = ("system", "developer")
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


class BadLineError(RequestError):
    """A line is wrong; `code` is one of the batch interface's, `param` names the field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


class BatchLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request of a batch."""

    custom_id: str
    url: str
    body: bytes  # a JSON object
    model: str
    prefix: int = 0  # 64 bits that lines with the same beginning of their prompt have in common


class _Line(msgspec.Struct, frozen=True, gc=False):
    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class _Head(msgspec.Struct, frozen=True, gc=False):
    """What is read of a body. Of prompts, only the beginning is looked at."""

    model: str
    stream: bool | None = None
    prompt_cache_key: str | None = None
    background: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, frozen=True, gc=False):
    role: str = ""


_line = msgspec.json.Decoder(_Line).decode
_head = msgspec.json.Decoder(_Head).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_message = msgspec.json.Decoder(_Message).decode


def read_line(raw: bytes) -> BatchLine:
    """Read a line in OpenAI's form: `{"custom_id", "method": "POST", "url", "body"}`.

    Raises:
        BadLineError: it is not JSON, a field is missing or wrong, or it asks for a stream.

    """
    try:
        raw.decode()  # msgspec does not check the text of fields that it skips
        line = _line(raw)
    except msgspec.ValidationError as error:
        raise BadLineError("invalid_request", f"the line is wrong: {error}", _param(str(error), "")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLineError("invalid_json_line", f"the line must be a JSON object in UTF-8: {error}") from error
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID:
        raise BadLineError(
            "invalid_request",
            f"custom_id must have 1 to {MAX_CUSTOM_ID} characters, got {len(line.custom_id)}",
            "custom_id",
        )
    if line.method != "POST":
        raise BadLineError("invalid_request", f"method must be POST, got {line.method[:20]!r}", "method")
    body = bytes(line.body)
    head = _read_head(body)
    if line.url == RESPONSES:
        _check_response(head)
    return BatchLine(custom_id=line.custom_id, url=line.url, body=body, model=head.model, prefix=_prefix_of(head))


def read_plain_line(raw: bytes, number: int, fields: Mapping[str, Any]) -> BatchLine:
    """Read a line that is a prompt or a chat; `fields` are those of a body that the line does not set itself.

    It is `{"prompt": …}` or `{"messages": […]}` with any other field of a body, a list of messages, a JSON string, or
    text that is no JSON. Its custom_id is the line's own, else its number.

    Raises:
        BadLineError: it is none of these, or no model is named.

    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadLineError("invalid_request", f"the line must be text in UTF-8: {error}") from error
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        if text.lstrip().startswith(("{", "[{")):  # meant as JSON
            raise BadLineError("invalid_json_line", f"the line begins like JSON, and is none: {error}") from error
        value = text
    if isinstance(value, list):
        value = {"messages": value}
    elif not isinstance(value, dict):
        value = {"prompt": value if isinstance(value, str) else text}
    custom_id = value.pop("custom_id", None)
    if isinstance(custom_id, (bool, dict, list)) or not 0 < len(str(custom_id)) <= MAX_CUSTOM_ID:
        raise BadLineError(
            "invalid_request",
            f"custom_id must be a number or text of 1 to {MAX_CUSTOM_ID} characters, got {str(custom_id)[:40]!r}",
            "custom_id",
        )
    if "prompt" not in value and "messages" not in value:
        raise BadLineError("invalid_request", "the line must have 'prompt' or 'messages'", "prompt")
    body = msgspec.json.encode({**fields, **value})
    return BatchLine(
        custom_id=str(number) if custom_id is None else str(custom_id),
        url=CHAT if "messages" in value else COMPLETIONS,
        body=body,
        model=(head := _read_head(body)).model,
        prefix=_prefix_of(head),
    )


def _read_head(body: bytes) -> _Head:
    try:
        head = _head(body)
    except msgspec.ValidationError as error:
        raise BadLineError(
            "invalid_request", f"the body is wrong: {error}", _param(str(error), "body.") or "body"
        ) from error
    if head.stream:
        raise BadLineError("invalid_request", "a batch has no streams: leave 'stream' out of the body", "body.stream")
    return head


def _check_response(head: _Head) -> None:
    """Refuse what only the intake's own responses have: an engine knows no other response."""
    for field in ("background", "conversation", "previous_response_id"):
        if _text(getattr(head, field)) not in (b"", b"false"):
            raise BadLineError(
                "invalid_request",
                f"a batch's responses are neither stored nor chained: leave '{field}' out of the body",
                f"body.{field}",
            )


def _prefix_of(head: _Head) -> int:
    """Return what the line has in common with those that begin as it does."""
    if head.prompt_cache_key:
        start = head.prompt_cache_key.encode()
    else:
        start = _text(head.system) + _text(head.instructions) or _first_of(_text(head.messages))
        start = start or (_text(head.prompt) or _text(head.input))[:_PREFIX_BYTES]
    digest = hashlib.blake2b(head.model.encode() + b"\0" + start, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _text(field: msgspec.Raw) -> bytes:
    text = bytes(field)
    return b"" if text == b"null" else text


def _first_of(messages: bytes) -> bytes:
    """Return the system message, or the beginning where there is none."""
    try:
        first = _items(messages)[0]
        if _message(first).role in _SYSTEM_ROLES:
            return bytes(first)
    except (msgspec.DecodeError, IndexError):  # whoever runs it says what is wrong
        pass
    return messages[:_PREFIX_BYTES]


def _param(message: str, before: str) -> str | None:
    """Return the field that an error of msgspec's names: as `$.messages[0]`, or in backticks where it is missing."""
    if " - at `$." in message:
        return before + message.rpartition(" - at `$.")[2].rstrip("`")
    if "required field `" in message:
        return before + message.partition("required field `")[2].partition("`")[0]
    return None
