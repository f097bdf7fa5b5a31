"""POST, GET and DELETE /v1/jobs: submit now, read the outcome later."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import Endpoint, JobView, Lane
from bitladder.decision import describe_decision
from bitladder.errors import GoneError, IntakeClosingError, NotFoundError, RequestError
from bitladder.ids import readable
from bitladder.queue.untrusted import MAX_WORD_CHARS, short
from bitladder.routing.body import has_messages
from dispatcher.jobs.job_ids import read_job_id
from dispatcher.openai.completions import outcome_headers, unless_gone
from dispatcher.responses import Response
from dispatcher.state import Gateway

# What a client that polls should leave between two looks.
POLL_AFTER_S = 1


async def post_job(request: HttpRequest) -> Response:
    """Accept a completion or chat body, told apart by its fields; `endpoint` and `lane` may be query parameters."""
    gateway: Gateway = request.app.state.gateway
    body = await gateway.body(request)
    endpoint = _endpoint(request.query_params.get("endpoint"), body)
    accepted = gateway.route(request, endpoint, body, lane=_lane(request.query_params.get("lane")))
    job = accepted.submission
    job_id = await gateway.submit(accepted)
    link = gateway.link(job_id)
    answer = {
        "id": job_id,
        "object": "job",
        "status": "queued",
        "model": job.model,
        "ceiling": job.request.ceiling,
        "queue": job.queue,
        **describe_decision(job.request.decision),
        "urls": {"self": link, "wait": f"{link}?wait=30", "cancel": link},
    }
    return _json(answer, 202, {"Location": link, "Retry-After": str(POLL_AFTER_S), "X-Job-Id": job_id})


async def get_job(request: HttpRequest) -> Response:
    """Show a job; with ?wait=seconds, answer when it is over or the time is."""
    gateway: Gateway = request.app.state.gateway
    job_id = read_job_id(request)
    wait_s = _wait(request.query_params.get("wait"), gateway.settings.intake.max_wait_s)
    view = await own_job(request, gateway, job_id)
    if not view.state.is_terminal and wait_s:
        with contextlib.suppress(IntakeClosingError), gateway.closing.interrupts():
            await unless_gone(request, gateway.inbox.wait(job_id, wait_s))
        view = await own_job(request, gateway, job_id)
    headers = outcome_headers(job_id, view.outcome) if view.outcome else {"Retry-After": str(POLL_AFTER_S)}
    return _json(describe(view), 200, headers)


async def delete_job(request: HttpRequest) -> Response:
    """Cancel a job: a waiting one is over at once, a running one is aborted by its worker."""
    gateway: Gateway = request.app.state.gateway
    job_id = read_job_id(request)
    await own_job(request, gateway, job_id)
    word = await gateway.queue.cancel(job_id)
    view = await own_job(request, gateway, job_id)
    return _json(describe(view) | {"cancellation": word}, 202 if word == "requested" else 200)


def describe(view: JobView) -> dict[str, Any]:
    """Return a job as JSON shows it: never its prompt."""
    shown: dict[str, Any] = {
        "id": readable(view.job_id),
        "object": "job",
        "status": view.state,
        "queue": view.queue,
        "enqueued_at": view.enqueued_ms / 1000,
        "attempts": view.attempts,
        "worker": view.worker,
    }
    if view.position is not None:
        shown["queue_position"] = view.position
    if view.request:
        shown["ceiling"] = view.request.ceiling and short(view.request.ceiling)
        shown |= describe_decision(view.request.decision.shortened(MAX_WORD_CHARS))
    if view.outcome:
        fields = msgspec.structs.asdict(view.outcome)
        hidden = ("state", "status", "body", "error", "code", "fence", "decision")
        shown |= {key: value for key, value in fields.items() if key not in hidden}
        shown |= describe_decision(view.outcome.decision)
        shown["result"] = view.outcome.body
        if view.outcome.chunks:
            shown["text"] = view.outcome.text or _first_text(view.outcome.answer)
        shown["error"] = {"message": view.outcome.error, "code": view.outcome.code} if view.outcome.error else None
    return shown


class _Choice(msgspec.Struct):
    text: str | None = None
    message: dict[str, Any] = {}


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


def _first_text(answer: bytes | None) -> str | None:
    """Return the text of a streamed answer's first choice, for clients that want nothing else."""
    try:
        choices = msgspec.json.decode(answer or b"{}", type=_Answer).choices
    except msgspec.DecodeError:
        return None
    found = choices and (choices[0].text or choices[0].message.get("content"))
    return found if isinstance(found, str) else None


def missing(job_id: str, ttl_s: int) -> NotFoundError | GoneError:
    """Tell an id that never was from one whose outcome expired: our ids carry the time they were made."""
    try:
        parsed = uuid.UUID(job_id)
    except ValueError:
        return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")
    made_s = (parsed.int >> 80) / 1000
    if parsed.version == 7 and made_s < time.time() - ttl_s:
        return GoneError(f"job {job_id} is no longer stored: outcomes are kept for {ttl_s} s", param="id")
    return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")


async def own_job(request: HttpRequest, gateway: Gateway, job_id: str) -> JobView:
    """Return a job that the caller may see; a job of another tenant is as unknown as one that never was."""
    view, caller = await gateway.view(job_id), request.state.caller
    if view is None or not caller.sees(view.tenant):
        raise missing(job_id, gateway.settings.queue.result_ttl_s)
    return view


def _wait(raw: str | None, max_s: float) -> float:
    if raw is None:
        return 0
    try:
        wait_s = float(raw)
    except ValueError:
        wait_s = -1
    if not 0 <= wait_s <= max_s:
        raise RequestError(f"wait must be a number of seconds from 0 to {max_s:g}, got {raw[:40]!r}", param="wait")
    return wait_s


def _endpoint(raw: str | None, body: bytes) -> Endpoint:
    if raw is None:
        return Endpoint.CHAT if has_messages(body) else Endpoint.COMPLETIONS
    try:
        return Endpoint(raw)
    except ValueError:
        raise RequestError(
            f"endpoint must be one of {', '.join(Endpoint)}, got {raw[:80]!r}", param="endpoint"
        ) from None


def _lane(raw: str | None) -> Lane | None:
    try:
        return Lane(raw) if raw is not None else None
    except ValueError:
        raise RequestError(f"lane must be one of {', '.join(Lane)}, got {raw!r:.80}", param="lane") from None


def _json(content: object, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")
