"""What a route says of itself: who may use it, what it does, and what it takes and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starlette.routing import Route

from bitladder.endpoints import Errors
from dispatcher.auth import Requirement, require
from dispatcher.http.responses import Handler

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
BYTES, FORM, JSONL = "application/octet-stream", "multipart/form-data", "application/jsonl"
OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body: its media type, what it is read or written as, and examples of it by name."""

    kinds: Sequence[type]  # the classes that it may be; none: text or events
    media_type: str = JSON
    examples: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of one status, without an error."""

    description: str
    content: Sequence[Content]
    headers: Sequence[str] = ()  # beside X-Request-Id, which every answer has
    links: Mapping[str, str] = field(default_factory=dict)  # name: the operation that takes this answer's id


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)  # one is equal to itself alone
class Operation:
    """One route."""

    method: str
    path: str
    requires: Requirement
    handler: Handler
    name: str
    tag: str
    summary: str
    description: str = ""
    parameters: Sequence[str] = ()  # beside those of the path and X-Request-Id
    body: Content | None = None
    answers: Mapping[int, Answer]
    errors: Sequence[str] = ()  # beside those that any route may answer
    error_shape: Errors = Errors.OPENAI

    def route(self) -> Route:
        return require(self.requires, self.method, self.path, self.handler)


def answer(
    kind: type,
    description: str,
    *,
    headers: Sequence[str] = (),
    examples: Mapping[str, object] | None = None,
    links: Mapping[str, str] | None = None,
    events: Content | None = None,
) -> Answer:
    """Return an answer in JSON; `events`: what it is as a stream."""
    content = [Content(kinds=(kind,), examples=examples or {}), *([events] if events else [])]
    return Answer(description=description, content=content, headers=headers, links=links or {})
