"""The errors that routes answer, with an example of each, by the names that the table of routes uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from bitladder.endpoints import Errors
from bitladder.errors import (
    AcceptanceUnknownError,
    AuthenticationError,
    ConflictError,
    ContentCodingError,
    ForbiddenError,
    GoneError,
    IntakeClosingError,
    ModelNotFoundError,
    NotFoundError,
    QueueFullError,
    QueueUnreachableError,
    RequestError,
    SlowBodyError,
    TooLargeError,
)
from bitladder.queue.calls.steering import OrderRefusedError
from bitladder.queue.json_views.problem import Error, problem_body
from bitladder.queue.upkeep.live_settings import RevisionError
from bitladder.settings.sections import Settings
from dispatcher.http.error_shapes import AnthropicError, anthropic_error
from dispatcher.openai.responses.create_options import NotImplementedHereError
from dispatcher.routes.parameters import EXAMPLE_JOB_ID, EXAMPLE_JOB_URL

_REFUSED = ("Retry-After", "Retry-After-Ms", "X-Should-Retry")


class _ErrorAnswer(NamedTuple):
    """One kind of error."""

    status: int
    description: str
    examples: dict[str, tuple[str, str | None]]  # by code: message and param
    headers: tuple[str, ...] = ()


ERRORS = {
    "BadRequest": _ErrorAnswer(
        400,
        "The request is wrong: `param` names the field or header.",
        {RequestError.code: ("X-Priority must be a whole number from 1 to 10, got '11'", "priority")},
    ),
    "Unauthorized": _ErrorAnswer(
        401,
        "No API key was sent, or none that is configured.",
        {
            AuthenticationError.code: (
                "send a valid API key: 'Authorization: Bearer <key>' (api-key and x-api-key will do)",
                None,
            )
        },
        ("WWW-Authenticate",),
    ),
    "Forbidden": _ErrorAnswer(
        403,
        "The key lacks the scope that the message names.",
        {ForbiddenError.code: ("this needs a key with the scope 'ops:read'; the key sent lacks it", None)},
    ),
    "NotFound": _ErrorAnswer(
        404,
        "There is no such model or job, or it is another tenant's.",
        {
            NotFoundError.code: ("there is no job 'x'", "id"),
            ModelNotFoundError.code: (str(ModelNotFoundError("x", "smollm2")), "model"),
        },
    ),
    "MethodNotAllowed": _ErrorAnswer(
        405,
        "The route knows other methods.",
        {"method_not_allowed": ("Invalid method for URL (PUT /v1/jobs): it takes POST", None)},
        ("Allow",),
    ),
    "RequestTimeout": _ErrorAnswer(
        408,
        "The request did not arrive in time ([intake].header_timeout_s, body_timeout_s).",
        {SlowBodyError.code: ("the body must arrive within 30 s ([intake].body_timeout_s)", None)},
    ),
    "Conflict": _ErrorAnswer(
        409,
        "The job was cancelled, its stream was requested before, or the first request with its key is running.",
        {"cancelled": ("the job was cancelled", None)},
        ("Location", "X-Job-Id", "X-Should-Retry"),
    ),
    "Gone": _ErrorAnswer(
        410,
        "The job is terminal and its outcome is no longer stored.",
        {GoneError.code: (f"job {EXAMPLE_JOB_ID} is no longer stored: outcomes are kept for 3600 s", "id")},
    ),
    "RevisionConflict": _ErrorAnswer(
        409,
        "Somebody else has changed them since they were read.",
        {RevisionError.code: ("the live settings have revision 4, not 3: read them again", "revision")},
    ),
    "OrderRefused": _ErrorAnswer(
        409,
        "The order does not fit what there is now.",
        {OrderRefusedError.code: ("344 jobs match now, and 100 were counted: count again (dry_run)", "confirm")},
    ),
    "TooLarge": _ErrorAnswer(
        413,
        "The body is larger than {max_body_bytes} bytes ([intake].max_body_bytes).",
        {
            TooLargeError.code: (
                "the body must be at most 1048576 bytes ([intake].max_body_bytes), inflated too, got 2000000 or more",
                None,
            )
        },
    ),
    "ContentCoding": _ErrorAnswer(
        415,
        "The body's Content-Encoding is not known.",
        {ContentCodingError.code: ("Content-Encoding must be one of gzip, x-gzip, deflate, or none, got 'br'", None)},
        ("Accept-Encoding",),
    ),
    "Range": _ErrorAnswer(
        416,
        "Range begins behind the file's end.",
        {"range_not_satisfiable": ("the range begins behind the end: the file has 1230 bytes", None)},
        ("Content-Range",),
    ),
    "KeyReused": _ErrorAnswer(
        422,
        "The Idempotency-Key belongs to a request with another body.",
        {ConflictError.code: ("the Idempotency-Key was used with another request body", "Idempotency-Key")},
    ),
    "TooMany": _ErrorAnswer(
        429,
        "The queue is full, the answer would come too late, or the key or its tenant has as much as it may.",
        {QueueFullError.code: ("queue smollm2:int4:normal is full (100000 jobs wait)", None)},
        _REFUSED,
    ),
    "HeadersTooLarge": _ErrorAnswer(
        431,
        "More headers or trailers than clients need, or larger ones.",
        {"headers_too_large": ("a request may have 100 headers and 32768 bytes before and behind its body", None)},
    ),
    "Failed": _ErrorAnswer(
        500,
        "The job failed; `code` says how.",
        {"worker_lost": ("the worker was lost", None)},
        ("X-Job-Id", "X-Should-Retry"),
    ),
    "NotImplemented": _ErrorAnswer(
        501,
        "A part of OpenAI's API that is not there; the message says what to use instead.",
        {NotImplementedHereError.code: ("this is not implemented: use something else", None)},
        ("X-Should-Retry",),
    ),
    "EngineFault": _ErrorAnswer(
        502,
        "The engine broke on the job, on every attempt.",
        {"engine_fault": ("the engine answered with status 500", None)},
        ("X-Job-Id", "X-Should-Retry"),
    ),
    "Unavailable": _ErrorAnswer(
        503,
        "Redis is unreachable or full, a queue is broken, or too many connections are open: nothing was accepted. With "
        "the code acceptance_unknown the job may have been, and Location says where to look: repeating is safe, with "
        "the same Idempotency-Key, or without one. Or the intake is being stopped: the job goes on at Location, and "
        "without one nothing was accepted.",
        {
            QueueUnreachableError.code: (str(QueueUnreachableError.public), None),
            IntakeClosingError.code: (
                f"this intake is being stopped; the job goes on: GET {EXAMPLE_JOB_URL}",
                None,
            ),
            AcceptanceUnknownError.code: (
                f"it is not known whether the job {EXAMPLE_JOB_ID} was accepted: the queue did not answer in time; "
                f"GET {EXAMPLE_JOB_URL} says whether it was, and repeating the request with the same Idempotency-Key "
                "is safe",
                None,
            ),
        },
        ("Location", "X-Job-Id", *_REFUSED),
    ),
    "OutOfTime": _ErrorAnswer(
        504,
        "The deadline passed; or the intake waits no longer, and the job is read at Location.",
        {"deadline_exceeded": ("the deadline passed while the job waited", None)},
        ("Location", "X-Job-Id", "X-Should-Retry"),
    ),
}
# What any route may answer; and what only those may that require a key.
EVERYWHERE = ("BadRequest", "MethodNotAllowed", "RequestTimeout", "HeadersTooLarge", "Unavailable")
WITH_KEY = ("Unauthorized", "Forbidden", "TooMany")


# Before the names of errors in the document, where they have another shape than OpenAI's.
PREFIXES = {Errors.OPENAI: "", Errors.ANTHROPIC: "Anthropic"}


def errors_json(settings: Settings) -> dict[str, Any]:
    """Return the answers with errors, in each shape."""
    return {
        f"{prefix}{name}": _as_json(error, settings, shape)
        for shape, prefix in PREFIXES.items()
        for name, error in ERRORS.items()
    }


def _as_json(error: _ErrorAnswer, settings: Settings, shape: Errors) -> dict[str, Any]:
    examples = {}
    for code, (message, param) in error.examples.items():
        body = problem_body(error.status, message, code, param)
        shaped = anthropic_error(error.status, body) if shape is Errors.ANTHROPIC else body
        examples[code] = {"value": msgspec.json.decode(shaped)}
    kind = AnthropicError if shape is Errors.ANTHROPIC else Error
    return {
        "description": error.description.replace("{max_body_bytes}", str(settings.intake.max_body_bytes)),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *error.headers)},
        "content": {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}, "examples": examples}
        },
    }
