"""Dead letters over HTTP: /v1/dead-letters lists them, /release and /drop below it act on them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import RequestError
from bitladder.ids import readable
from bitladder.queue.dead_letters import Choice, DeadLetter, DeadLetterHead, DeadLetters, Loss, only
from dispatcher.jobs.job_ids import read_job_id
from dispatcher.jobs.jobs import describe
from dispatcher.responses import Response
from dispatcher.state import Gateway

# Jobs that one answer lists; `total` says how many there are.
MAX_LISTED = 1000
# The age of a job is at most this: thirty years.
MAX_AGE_S = 1e9


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a release or a drop."""

    ids: list[str] | None = None
    code: str | None = None
    queue: str | None = None
    older_than_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE_S)] | None = None
    all: bool = False  # without it, an order that names nothing is refused
    dry_run: bool = False


async def list_dead_letters(request: HttpRequest) -> Response:
    """List dead letters, the latest first; ?code=, ?queue=, ?older_than_s=, ?limit= (at most 1000)."""
    asked = request.query_params
    limit = _number("limit", asked.get("limit"), 100, MAX_LISTED)
    age_s = _number("older_than_s", asked["older_than_s"], 0, MAX_AGE_S) if "older_than_s" in asked else None
    dead_letters, choice = (
        _dead_letters(request),
        choose(code=asked.get("code"), queue=asked.get("queue"), older_than_s=age_s),
    )
    heads = await dead_letters.heads(choice)
    shown = [describe_dead_letter(job) for job in await dead_letters.look(heads[: int(limit)])]
    return _json({"object": "list", "total": len(heads), "by_code": by_code(heads), "data": shown})


async def get_dead_letter(request: HttpRequest) -> Response:
    """Show one dead letter with what happened to it."""
    job_id, dead_letters = read_job_id(request), _dead_letters(request)
    job = only(await dead_letters.jobs(Choice(ids=[job_id])), job_id)
    history = [describe_loss(loss) for loss in await dead_letters.history(job_id)]
    return _json(describe_dead_letter(job) | {"history": history})


async def release_dead_letters(request: HttpRequest) -> Response:
    """Queue the chosen jobs again, with all their attempts and a new deadline."""
    return await _order(request, "released")


async def drop_dead_letters(request: HttpRequest) -> Response:
    """Take the chosen jobs out for good."""
    return await _order(request, "dropped")


def choose(
    *,
    ids: list[str] | None = None,
    code: str | None = None,
    queue: str | None = None,
    older_than_s: float | None = None,
) -> Choice:
    """Return a choice of dead letters by their age instead of their time."""
    before_ms = None if older_than_s is None else int((time.time() - older_than_s) * 1000)
    return Choice(ids=ids, code=code, queue=queue, before_ms=before_ms)


def by_code(jobs: Sequence[DeadLetterHead]) -> dict[str, int]:
    """Return how many jobs ended with each error code, the most frequent first."""
    return dict(Counter(job.code for job in jobs).most_common())


def describe_dead_letter(job: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON shows it: never its prompt."""
    head = {"id": readable(job.job_id), "object": "job", "dead_lettered_at": job.at_ms / 1000, "code": job.code}
    return (describe(job.view) if job.view else {}) | head


def describe_loss(loss: Loss) -> dict[str, Any]:
    """Return one lost execution as JSON shows it."""
    outcome = loss.outcome
    return {
        "at": loss.at_ms / 1000,
        "worker": loss.worker,
        "execution": loss.fence,
        "tier": outcome.tier if outcome else None,
        "code": outcome.code if outcome else None,
        "error": outcome.error if outcome else None,
    }


async def _order(request: HttpRequest, word: str) -> Response:
    gateway: Gateway = request.app.state.gateway
    order = _read_order(await gateway.body(request))
    dead_letters = _dead_letters(request)
    choice = choose(ids=order.ids, code=order.code, queue=order.queue, older_than_s=order.older_than_s)
    jobs = await dead_letters.heads(choice)
    if order.dry_run:
        return _json({"dry_run": True, "chosen": len(jobs), "by_code": by_code(jobs), word: []})
    done = await (dead_letters.release(jobs) if word == "released" else dead_letters.drop(jobs))
    done = [readable(job_id) for job_id in done]
    return _json({"dry_run": False, "chosen": len(jobs), "by_code": by_code(jobs), word: done})


def _read_order(body: bytes) -> Order:
    try:
        order = msgspec.json.decode(body, type=Order)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            f"the body must be a JSON object with ids, code, queue, older_than_s, all or dry_run: {error}"
        ) from error
    named = (order.ids, order.code, order.queue, order.older_than_s)
    if order.all == any(value is not None for value in named):
        raise RequestError(
            'the body must name which jobs, by ids, code, queue or older_than_s, or say "all": true, and not both',
            param="all",
        )
    return order


def _number(name: str, raw: str | None, default: float, most: float) -> float:
    if raw is None:
        return default
    try:
        value = float(raw)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise RequestError(f"{name} must be a number from 0 to {most:g}, got {raw[:40]!r}", param=name)
    return value


def _dead_letters(request: HttpRequest) -> DeadLetters:
    gateway: Gateway = request.app.state.gateway
    return DeadLetters(gateway.queue)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
