"""What POST /v1/responses asks of the intake, and the body that the engine gets instead. No I/O.

An engine knows nothing of what is stored: items of an earlier response go before the new ones, and the fields that say
where and when to run do not reach it.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from bitladder.contract import NO_BODY, ResponseOptions
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.body import param_of
from dispatcher.openai.responses.schema import Fields

# Characters of a continuation_id, as long as any other id may be.
_MAX_CONTINUATION_ID = 512
_HOUR_MS = 3_600_000
COMPACTION = "compaction"  # the type of an item that stands for a conversation
_WINDOWS = {"soonest": None, "2h": 2 * _HOUR_MS, "8h": 8 * _HOUR_MS}
# Of these fields an engine with a store of its own would make use, and others refuse some.
_FOR_THE_INTAKE = ("background", "background_options", "store", "previous_response_id", "conversation")


T = TypeVar("T")


class NotImplementedHereError(RequestError):
    """A part of OpenAI's API that is not there; the message says what to use instead."""

    status = 501
    code = "not_implemented"


class BackgroundOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a background response is run."""

    completion_window: Literal["soonest", "2h", "8h"] | UnsetType | None = UNSET
    continuation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_CONTINUATION_ID)] | UnsetType | None = (
        UNSET
    )


class CreateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a request that are for the intake."""

    input: msgspec.Raw = NO_BODY  # read only where it is put behind earlier items
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    service_tier: Any = None

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def deadline_ms(self) -> int | None:
        """In how long it is to be completed; None: soonest."""
        window = self.background_options and self.background_options.completion_window
        return _WINDOWS[window or "soonest"]

    @property
    def lane(self) -> Lane | None:
        """The lane that its completion window means; None: what the rest of the request says."""
        return Lane.BATCH if self.deadline_ms else None

    @property
    def continuation_id(self) -> str:
        return (self.background_options and self.background_options.continuation_id) or ""

    @property
    def kept(self) -> ResponseOptions:
        return ResponseOptions(
            store=self.is_stored,
            background=bool(self.background),
            previous_response_id=self.previous_response_id,
            service_tier=self.service_tier if isinstance(self.service_tier, str) else "",
        )


_options = msgspec.json.Decoder(CreateOptions)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Read a body.

    Raises:
        RequestError: not JSON, or a field is missing or of another type.

    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is wrong: {error}", param=param_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error


def read_options(body: bytes) -> CreateOptions:
    """Read what a request asks of the intake.

    Raises:
        RequestError: not JSON, a field of another type, or fields that exclude each other.
        NotImplementedHereError: it belongs to a conversation.

    """
    options = decoded(_options, body)
    if options.conversation is not None:
        raise NotImplementedHereError(
            "conversations are not implemented: chain responses with previous_response_id", param="conversation"
        )
    if options.background and not options.is_stored:
        raise RequestError("background needs store: true, or nothing could be read", param="background")
    if options.background_options and not options.background:
        raise RequestError("background_options needs background: true", param="background_options")
    if options.deadline_ms and options.stream:
        raise RequestError(
            "stream must not be true with a completion_window of 2h or 8h", param="background_options.completion_window"
        )
    return options


def engine_body(body: bytes, options: CreateOptions, earlier: list[Any] | None) -> bytes:
    """Return the body as it is routed and run; `earlier`: the items before its own."""
    fields = _fields(body)
    has_summary = b'"compaction"' in body
    if earlier is None and not has_summary and not any(name in fields for name in _FOR_THE_INTAKE):
        return body
    for name in _FOR_THE_INTAKE:
        fields.pop(name, None)
    if earlier is not None or has_summary:
        items = [*(earlier or ()), *map(_readable, sent_items(msgspec.json.decode(options.input)))]
        fields["input"] = msgspec.Raw(msgspec.json.encode(items))
    return msgspec.json.encode(fields)


def sent_items(sent: Any) -> list[Any]:  # noqa: ANN401  (anything may be sent)
    """Return the input of a request as a list.

    Raises:
        RequestError: it is neither a text nor a list: put behind other items it would be lost without a word.

    """
    if sent is None or isinstance(sent, str | list):
        return input_items(sent)
    raise RequestError(f"input must be a text or a list of items, got {type(sent).__name__}", param="input")


def input_items(sent: Any) -> list[Any]:  # noqa: ANN401  (what is wrong with it the engine says)
    """Return a request's input as a list: a text is a message of the user's."""
    if isinstance(sent, str):
        return [{"type": "message", "role": "user", "content": sent}]
    return sent if isinstance(sent, list) else []


def _readable(item: Any) -> Any:  # noqa: ANN401  (what is wrong with it the engine says)
    """Return an item as an engine reads it: a summary is a message of the model's."""
    if not isinstance(item, dict) or item.get("type") != COMPACTION:
        return item
    try:
        summary = base64.b64decode(item["encrypted_content"], validate=True).decode()
    except (KeyError, TypeError, ValueError) as error:
        message = "the encrypted_content of a compaction must be what POST /v1/responses/compact answered"
        raise RequestError(message, param="input") from error
    return {"type": "message", "role": "assistant", "content": f"Summary of the conversation so far: {summary}"}


def body_fields(body: bytes) -> Fields:
    """Return a stored body as fields; empty where it is no object."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
