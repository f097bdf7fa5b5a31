"""Repeats of a request with its Idempotency-Key (the IETF's draft): docs/decisions/0019."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable

import msgspec
from redis.exceptions import RedisError
from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome
from bitladder.errors import BitladderError, ConflictError
from bitladder.ids import in_url
from bitladder.queue.server.protocol import unreachable
from bitladder.routing.accept import idempotency_key
from dispatcher.http.preferences import Preferences
from dispatcher.http.problems import problem
from dispatcher.http.responses import Response
from dispatcher.state import IntakeState

_KEY = "Idempotency-Key"
# How long a request may take that makes something else than a job; if its intake dies, its key is free then.
_RUNNING_MS = 300_000
# Answers are a few hundred bytes; a longer one is not kept.
_MAX_KEPT_BYTES = 64 * 1024


class KeyInUseError(BitladderError):
    """The first request with this idempotency key is still running."""

    status = 409
    code = "idempotency_key_in_use"
    retry_after_s = 1.0
    param = _KEY

    def __init__(self, job_id: str = "") -> None:
        super().__init__("the first request with this Idempotency-Key is still running")
        self.job_id = job_id  # that the first request stands for, if it does


def attaches(request: HttpRequest, preferences: Preferences) -> bool:
    """Return whether a repeat waits for the first request's job.

    It asks for that, or a library repeats its own request, and then nobody else waits: its first connection is gone.
    """
    count = request.headers.get("x-stainless-retry-count", "")
    return preferences.waits or (count.isdecimal() and int(count[:9]) > 0)


async def ended(state: IntakeState, job_id: str) -> Outcome:
    """Return the outcome of the first request's job.

    Raises:
        KeyInUseError: it has none.

    """
    (outcome,) = await state.queue.look([job_id])
    if isinstance(outcome, Outcome):
        return outcome
    raise KeyInUseError(job_id)


def in_use(state: IntakeState, error: KeyInUseError) -> Response:
    """Return the answer to a repeat that came while the first request is running."""
    state.metrics.refused(error.code).inc()
    link = state.job_url(error.job_id)
    headers = {"X-Job-Id": in_url(error.job_id), "Location": link, "Retry-After": "1", "X-Should-Retry": "true"}
    message = f"{error}: repeat it later, or with 'Prefer: wait'; GET {link} shows the job"
    return problem(error.status, message, error.code, param=_KEY, headers=headers)


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of the first request with a key."""

    fingerprint: str  # of its body
    status: int = 0  # of its answer; 0: it is still running
    body: str = ""
    location: str = ""


_decode = msgspec.json.Decoder(_Kept).decode


async def once(
    request: HttpRequest, state: IntakeState, body: bytes, make: Callable[[], Awaitable[Response]]
) -> Response:
    """Answer a request that makes something else than a job: `make` runs once for a key, and its answer is kept.

    `body` is what tells requests apart. Errors are not kept: what was refused may be sent again, and corrected.

    Raises:
        KeyInUseError: the first request with this key is still running.
        ConflictError: it had another body.
        QueueUnreachableError: Redis is unreachable.

    """
    tenant = request.state.caller.tenant
    key = idempotency_key(request.headers, tenant)
    if not key:
        return await make()
    fingerprint = hashlib.sha256(body).hexdigest()[:32]
    name = f"bl:idem::{hashlib.sha256(f'{request.url.path} {key}'.encode()).hexdigest()[:32]}"
    client = state.queue.client
    try:
        first = msgspec.json.encode(_Kept(fingerprint))
        if not await client.set(name, first, nx=True, px=_RUNNING_MS):
            return _again(await client.get(name), fingerprint)
    except (RedisError, OSError) as error:
        raise unreachable("cannot look up the Idempotency-Key", error) from error
    kept = None
    try:
        answer = await make()
        if answer.status_code < 400 and len(answer.body) <= _MAX_KEPT_BYTES:
            text, location = bytes(answer.body).decode(), answer.headers.get("location", "")
            kept = _Kept(fingerprint, answer.status_code, text, location)
    finally:
        with contextlib.suppress(RedisError, OSError):  # the request is done; its key is free when its time is over
            if kept:
                await client.set(name, msgspec.json.encode(kept), px=state.settings.queue.result_ttl_s * 1000)
            else:
                await client.delete(name)
    return answer


def _again(data: bytes | str | None, fingerprint: str) -> Response:
    """Return the answer to a repeat."""
    try:
        kept = _decode(data or b"")
    except msgspec.DecodeError:  # it has ended just now, or is none of ours
        raise KeyInUseError from None
    if kept.fingerprint != fingerprint:
        raise ConflictError("the Idempotency-Key was used with another request body", param=_KEY)
    if not kept.status:
        raise KeyInUseError
    headers = {"Location": kept.location} if kept.location else {}
    return Response(kept.body, kept.status, headers, media_type="application/json")
