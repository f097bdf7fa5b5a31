"""How the events of a stream are written, which differs by its route (bitladder/endpoints.py)."""

from __future__ import annotations

import msgspec

from bitladder.endpoints import Endpoint, Events
from bitladder.errors import IntakeClosingError
from bitladder.queue.json_views.problem import problem_body
from bitladder.routing.body import with_field
from dispatcher.http import closing
from dispatcher.http.error_shapes import anthropic_error, message_of

DONE = b"data: [DONE]\n\n"

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def route_of(events: bytes) -> Endpoint:
    """Return the route that events come from, where its request is no longer stored."""
    if events.startswith(b"event: "):
        return Endpoint.RESPONSES if events.startswith(b"event: response.") else Endpoint.MESSAGES
    return Endpoint.COMPLETIONS


def done_event(endpoint: Endpoint) -> bytes:
    """Return what follows the engine's last event; a stream of named ones ends with that."""
    return b"" if endpoint.row.events is Events.NAMED else DONE


def error_event(endpoint: Endpoint, status: int, body: bytes, code: str, number: int) -> bytes:
    """Return an error as an event; `body`: the error in JSON, `number`: of the events before it."""
    if endpoint is Endpoint.MESSAGES:
        return b"event: error\ndata: %s\n\n" % anthropic_error(status, body)
    if endpoint is Endpoint.RESPONSES:
        error = {"type": "error", "code": code, "message": message_of(body), "param": None, "sequence_number": number}
        return b"event: error\ndata: %s\n\n" % msgspec.json.encode(error)
    return b"data: %s\n\n" % body


def restart_event(endpoint: Endpoint, job_id: str, url: str, last_id: str, number: int = 0) -> bytes:
    """Return the last event of a stream that goes on elsewhere."""
    if endpoint.row.events is not Events.NAMED:
        return closing.restart_event(job_id, url, last_id)
    code = IntakeClosingError.code
    return error_event(endpoint, 503, problem_body(503, closing.restart_message(url, last_id), code), code, number)


def number_of(events: bytes) -> int:
    """Return how many events there are."""
    return events.count(b"\n\n")


def with_service_tier(endpoint: Endpoint, events: bytes, service_tier: str) -> bytes:
    """Return the events of a chunk, with the service tier that was used where the route's answers have one."""
    if endpoint is Endpoint.MESSAGES:
        return events
    add = _in_response if endpoint is Endpoint.RESPONSES else _in_chunk
    lines = events.split(b"\n")
    return b"\n".join(
        b"data: " + add(line[6:], service_tier) if line.startswith(b"data: {") else line for line in lines
    )


def answer_with_service_tier(endpoint: Endpoint, answer: bytes, service_tier: str) -> bytes:
    """Return a whole answer, with the service tier that was used where the route's answers have one."""
    has_tier = endpoint.generates and endpoint is not Endpoint.MESSAGES
    return _in_chunk(answer, service_tier) if has_tier and service_tier else answer


def _in_chunk(data: bytes, service_tier: str) -> bytes:
    return with_field(data, "service_tier", service_tier)


def _in_response(data: bytes, service_tier: str) -> bytes:
    """Return an event of a response's stream: those that have the whole response say it there."""
    if b'"response":' not in data:
        return data
    fields = _fields(data)
    if "response" not in fields:
        return data
    return msgspec.json.encode(fields | {"response": msgspec.Raw(_in_chunk(bytes(fields["response"]), service_tier))})
