"""What a client sends to an intake, and what its answers say. No I/O."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from typing import Any

import httpx2

from bitladder.entries import KEY, Body, Entry, encode_body, id_of, read_entry, read_headers, shared_headers
from bitladder.errors import (
    BitladderError,
    ConfigError,
    ConflictError,
    GoneError,
    JobError,
    NotFoundError,
    RequestError,
    TooLargeError,
)
from bitladder.ids import in_url

_HEADERS = {
    "priority": "X-Priority",
    "max_latency_ms": "X-Max-Latency-Ms",
    "deadline_ms": "X-Deadline-Ms",
    "min_tier": "X-Min-Tier",
    "max_tier": "X-Max-Tier",
    "max_cost": "X-Max-Cost",
    "allow_below_floor": "X-Allow-Below-Floor",
    "cascade": "X-Cascade",
    "idempotency_key": "Idempotency-Key",
    "webhook_url": "X-Webhook-Url",
    "webhook_secret": "X-Webhook-Secret",
}
DEFAULT_URL = "http://127.0.0.1:8000"
# The longest single ?wait=; the intake's limit is [intake].max_wait_s.
WAIT_S = 30.0
TERMINAL = ("finished", "failed", "cancelled", "expired")
# A submission of which it is not known whether it was accepted is sent again with its key; before each try, a pause.
PAUSES_S = (0.0, 0.5, 1.0, 2.0)
# Error codes of such submissions: the intake's, and our own for a call that was sent and had no answer of an intake.
_UNKNOWN, _NO_ANSWER = "acceptance_unknown", "no_answer"
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
# A wrong request has the class that Producer raises for it, too.
_REFUSALS = {
    base.status: type(base.__name__, (JobError, base), {"__doc__": base.__doc__})
    for base in (RequestError, NotFoundError, GoneError, TooLargeError, ConflictError)
}
Job = dict[str, Any]
# What becomes of one of many.
Answer = Job | BitladderError


def envelope_headers(options: dict[str, Any]) -> dict[str, str]:
    """Return the headers of an envelope; unknown options are an error, None means not given."""
    if unknown := set(options) - set(_HEADERS):
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}: expected {', '.join(_HEADERS)}")
    return {_HEADERS[name]: str(value) for name, value in options.items() if value is not None}


def headers_of(options: dict[str, Any]) -> dict[str, str]:
    """Return the headers of one submission."""
    return read_headers(envelope_headers(options))


def headers_of_many(options: dict[str, Any]) -> dict[str, str]:
    """Return the headers of many submissions; a key for all of them is an error."""
    return shared_headers(envelope_headers(options))


def submission(item: Body | Entry, shared: dict[str, str]) -> dict[str, Any]:
    """Return what is sent for one body, with a key to repeat it with.

    Raises:
        RequestError: it cannot be sent.

    """
    body, headers = read_entry(item, shared)
    fixed = {"Content-Type": "application/json", KEY: secrets.token_hex(16)}
    return {"content": encode_body(body), "headers": fixed | headers}


def job_path(job_id: object) -> str:
    """Return the path of a job.

    Raises:
        BitladderError: this is no id.

    """
    job_id = id_of(job_id)
    if isinstance(job_id, BitladderError):
        raise job_id
    return f"/v1/jobs/{in_url(job_id)}"


def in_doubt(error: JobError, doubt: JobError | None) -> JobError:
    """Return the error of a submission that is to be sent again, as it may have been accepted; raise any other.

    `doubt`: an earlier try's. Once it is not known whether the job was accepted, no later error says that it was not.
    """
    if error.code in (_UNKNOWN, _NO_ANSWER) or (doubt is not None and error.status is None):
        return doubt or error
    if doubt is None:
        raise error
    raise JobError(f"it is not known whether the job was accepted: {doubt}; then: {error}", error.status, doubt.code)


def stopped(answered: int, last: Answer) -> JobError | None:
    """Return the error of many submissions that end here, as no intake has answered the last one; None: they go on."""
    if isinstance(last, JobError) and last.status is None:
        return JobError(f"no intake answers after {answered} bodies: {last}", code=last.code)
    return None


def unanswered(url: httpx2.URL, error: httpx2.HTTPError) -> JobError:
    """Return the error of a call that no intake has answered."""
    code = None if isinstance(error, _NOT_SENT) else _NO_ANSWER
    if isinstance(error, httpx2.TimeoutException) and code:
        code = "timeout"  # a caller that has waited so long does not wait again
    shown = f"{url.scheme}://{url.netloc.decode()}{url.path}"  # without the user and the password of a proxy
    return JobError(f"cannot reach the intake at {shown}: {error or type(error).__name__}", code=code)


def base_url(url: str) -> httpx2.URL:
    """Return the URL that paths are put behind. OpenAI's clients take it with /v1 at its end, which is left out here.

    Raises:
        ConfigError: it is no URL of an intake; it may hold a password, and is not repeated.

    """
    with contextlib.suppress(httpx2.InvalidURL, TypeError):
        parsed = httpx2.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return parsed.copy_with(path=parsed.path.rstrip("/").removesuffix("/v1") or "/")
    raise ConfigError(f"the URL of an intake (--url, BITLADDER_URL) must be as {DEFAULT_URL}")


def authorization(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key must be printable ASCII, as `bitladder keys new` shows it")  # without its value
    return {"Authorization": f"Bearer {api_key}"}


def checked(answer: httpx2.Response) -> Job:
    """Return what an intake has answered.

    Raises:
        JobError: it is an error, or another program's answer.

    """
    try:
        content: Job = answer.json()
    except ValueError:  # a proxy's own page
        code = _NO_ANSWER if answer.status_code >= 500 else None
        raise JobError(f"no answer of an intake: {answer.text[:200]!r}", answer.status_code, code) from None
    if answer.status_code >= 400:
        raise _refusal(answer, content)
    return content


def _refusal(answer: httpx2.Response, content: Mapping[str, Any]) -> JobError:
    detail = content.get("error") or {}
    refusal: JobError = _REFUSALS.get(answer.status_code, JobError)(
        str(detail.get("message", answer.text)), answer.status_code, detail.get("code"), param=detail.get("param")
    )
    if (pause := answer.headers.get("Retry-After", "")).isdecimal():
        refusal.retry_after_s = float(pause)
    return refusal


def chunk_text(chunk: Job) -> str:
    """Return the text in one event of a stream."""
    if "error" in chunk:
        raise JobError(str(chunk["error"].get("message")))
    choice = (chunk.get("choices") or [{}])[0]
    return str(choice.get("text") or (choice.get("delta") or {}).get("content") or "")
