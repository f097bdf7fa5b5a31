"""What an engine means by an error: an HTTP status, or an error in the middle of a stream.

The cause decides what becomes of the job. A wrong request: the client gets the error. A busy engine: it is asked again.
A fault of the engine: another tier is asked.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from workers.engines import lenient
from workers.engines.base import Answer
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineError, EngineFaultError
from workers.engines.sse import Event, EventParser, EventTooLargeError

_BUSY = (429, 503)
# About the worker's own key, credit or time: the client's request is not the cause.
_OF_THE_WORKER = (401, 402, 407, 408)
# vLLM's, where a model cannot do what a route does; the first ones where it has no such route at all.
_NOT_DONE = (404, 405, 501)
# The quota is used up until it is paid for, so waiting is no use. (Messages do not tell: some say "quota" for a rate.)
_QUOTA_USED_UP = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}
# vLLM answers 400 to every ValueError and TypeError, also to those of writing its own answer. The first pattern is
# Python's message for NaN.
_NAN = re.compile(rb"not JSON compliant", re.IGNORECASE)
_OF_ITS_ANSWER = re.compile(
    rb"not JSON serializable|validation errors? for (?:Chat)?Completion(?:Stream)?Response", re.IGNORECASE
)
# Of an error that the client gets: some servers repeat the request in it, once for each thing that is wrong.
_MAX_ERROR_BYTES = 64 * 1024
_REQUEST_TYPES = ("BadRequestError", "invalid_request_error")


def read_events(parser: EventParser, data: bytes) -> list[Event]:
    """Return the events of an engine's stream that end in these bytes.

    Raises:
        EngineFaultError: the stream cannot be read.

    """
    try:
        return parser.feed(data)
    except EventTooLargeError as error:
        raise EngineFaultError(f"the stream cannot be read: {error}") from error


def judged(status: int, headers: Mapping[str, str], body: bytes, endpoint: str = "") -> Answer:
    """Return the answer to a request that was wrong, or that the model of `endpoint` cannot do.

    Raises:
        EngineBusyError: the engine may be asked again, after a while.
        EngineCorruptedError: the engine has computed NaN or infinity.
        EngineFaultError: anything else that is not the request's fault.

    """
    message, fields = _error_of(body)
    what = f"{status}: {message}"
    if status in _BUSY:
        if _QUOTA_USED_UP & {fields.get("code"), fields.get("type")}:
            raise EngineFaultError(f"the engine's quota is used up ({what})")
        raise EngineBusyError(f"the engine is busy ({what})", retry_after_s=_retry_after_s(headers))
    if status in _NOT_DONE and not isinstance(fields.get("message"), str):
        message = f"the engine of this model has no route {endpoint}: it answered {status}"
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "unsupported_route"}
        return Answer(status=status, body=lenient.write({"error": error}))
    if status == 501:
        return Answer(status=status, body=_as_json(status, body, message))
    if not 400 <= status < 500 or status in _OF_THE_WORKER:
        raise EngineFaultError(f"the engine answered {what}")
    if _NAN.search(body):
        raise EngineCorruptedError(f"the engine could not write its own answer: {what}")
    if _OF_ITS_ANSWER.search(body):
        raise EngineFaultError(f"the engine could not write its own answer: {what}")
    return Answer(status=status, body=_as_json(status, body, message))


def broken_off(error: object, *, has_begun: bool) -> Answer:
    """Return the answer to a streamed request that was wrong, or raise as `judged` does.

    An engine that has given tokens has accepted the request: an error after that is about the engine.
    """
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": str(error)}
    status = _status(fields)
    try:
        answer = judged(status, {}, lenient.write({"error": fields}))
    except EngineBusyError as busy:
        if has_begun:
            raise EngineFaultError(f"the stream ended early: {busy}") from busy
        raise
    if has_begun:
        raise EngineFaultError(f"the stream ended early: {str(fields.get('message'))[:500]}")
    return answer


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return for how long an engine wants no requests; None where it does not say.

    A date counts from the answer's own `Date`: the clocks of two machines may be far apart.
    """
    for name, unit_s in (("Retry-After-Ms", 0.001), ("Retry-After", 1.0)):
        try:
            if math.isfinite(wait_s := float(headers[name]) * unit_s):
                return max(0.0, wait_s)
        except (KeyError, ValueError):
            continue
    until_s, now_s = _date(headers.get("Retry-After")), _date(headers.get("Date"))
    return None if until_s is None else max(0.0, until_s - (time.time() if now_s is None else now_s))


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def _status(error: Mapping[str, Any]) -> int:
    """Return the HTTP status that an error in a stream stands for."""
    code = error.get("code", error.get("status"))
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return 400 if error.get("type") in _REQUEST_TYPES else 500


def _error_of(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return an error's message, and its fields."""
    try:
        value, _ = lenient.read(body)
    except (ValueError, EngineError):
        value = None
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, dict) and isinstance(message := error.get("message"), str):
        return message[:500], error
    return body[:500].decode(errors="replace"), error if isinstance(error, dict) else {}


def _as_json(status: int, body: bytes, plain: str) -> bytes:
    """Return the body as JSON; plain text, such as a proxy's, becomes an OpenAI error."""
    try:
        value, text = lenient.read(body)
        if isinstance(value, dict) and len(body) <= _MAX_ERROR_BYTES:
            return text if text is body else lenient.write(value)
    except (ValueError, EngineError):
        pass
    message = plain or f"the engine answered {status}"
    return lenient.write({"error": {"message": message, "type": "invalid_request_error", "code": status}})
