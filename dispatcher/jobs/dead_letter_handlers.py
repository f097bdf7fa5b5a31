"""Dead letters over HTTP: list, show, release and drop them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import RequestError
from bitladder.ids import readable
from bitladder.queue.dead_letters import Choice, DeadLetterHead, DeadLetters, choose, only
from bitladder.queue.json_views.dead_letter import (
    DeadLetterEntry,
    count_by_code,
    describe_dead_letter,
    describe_history,
)
from bitladder.queue.json_views.kinds import Count
from dispatcher.http.request_parts import path_job_id, query_number, read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state

# Jobs that one answer lists; `total` says how many there are.
DEFAULT_LISTED, MAX_LISTED = 100, 1000
# The age of a job is at most this: thirty years.
MAX_AGE_S = 1e9

Counts = dict[str, Annotated[int, msgspec.Meta(ge=1)]]


class DeadLetterSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters a release or a drop acts on."""

    ids: list[str] | None = None
    code: str | None = None
    queue: str | None = None
    older_than_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE_S)] | None = None
    all: bool = False  # without it, a body that names no jobs is refused
    dry_run: Annotated[bool, msgspec.Meta(description="Only count.")] = False


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, and how many there are with each error code."""

    object: Literal["list"] = "list"
    total: Count
    by_code: Counts
    data: list[DeadLetterEntry]


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    dry_run: bool
    chosen: Count
    by_code: Counts


class Released(_Result, frozen=True, kw_only=True):
    """Which jobs were queued again."""

    released: list[str]


class Dropped(_Result, frozen=True, kw_only=True):
    """Which jobs were dropped."""

    dropped: list[str]


async def list_dead_letters(request: HttpRequest) -> Response:
    """List dead letters, the latest first; ?code=, ?queue=, ?older_than_s=, ?limit= (at most 1000)."""
    code, queue = request.query_params.get("code"), request.query_params.get("queue")
    limit = query_number(request, "limit", maximum=MAX_LISTED)
    age_s = query_number(request, "older_than_s", maximum=MAX_AGE_S)
    dead_letters = _dead_letters(request)
    heads = await dead_letters.heads(choose(code=code, queue=queue, older_than_s=age_s))
    jobs = await dead_letters.look(heads[: DEFAULT_LISTED if limit is None else int(limit)])
    entries = [describe_dead_letter(job) for job in jobs]
    return json_response(DeadLetterList(total=len(heads), by_code=count_by_code(heads), data=entries))


async def get_dead_letter(request: HttpRequest) -> Response:
    """Show one dead letter with its lost executions."""
    job_id, dead_letters = path_job_id(request), _dead_letters(request)
    job = only(await dead_letters.jobs(Choice(ids=[job_id])), job_id)
    return json_response(describe_history(job, await dead_letters.history(job_id)))


async def release_dead_letters(request: HttpRequest) -> Response:
    """Queue the chosen jobs again, with all their attempts and a new deadline."""
    selection = await _read_selection(request)
    heads = await _chosen(request, selection)
    done = [] if selection.dry_run else await _dead_letters(request).release(heads)
    released = [readable(job_id) for job_id in done]
    result = Released(dry_run=selection.dry_run, chosen=len(heads), by_code=count_by_code(heads), released=released)
    return json_response(result)


async def drop_dead_letters(request: HttpRequest) -> Response:
    """Take the chosen jobs out for good."""
    selection = await _read_selection(request)
    heads = await _chosen(request, selection)
    done = [] if selection.dry_run else await _dead_letters(request).drop(heads)
    dropped = [readable(job_id) for job_id in done]
    result = Dropped(dry_run=selection.dry_run, chosen=len(heads), by_code=count_by_code(heads), dropped=dropped)
    return json_response(result)


async def _chosen(request: HttpRequest, selection: DeadLetterSelection) -> list[DeadLetterHead]:
    choice = choose(ids=selection.ids, code=selection.code, queue=selection.queue, older_than_s=selection.older_than_s)
    return await _dead_letters(request).heads(choice)


async def _read_selection(request: HttpRequest) -> DeadLetterSelection:
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    try:
        selection = msgspec.json.decode(body, type=DeadLetterSelection)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            f"the body must be a JSON object with ids, code, queue, older_than_s, all or dry_run: {error}"
        ) from error
    criteria = (selection.ids, selection.code, selection.queue, selection.older_than_s)
    if selection.all == any(criterion is not None for criterion in criteria):
        raise RequestError(
            'the body must name which jobs, by ids, code, queue or older_than_s, or say "all": true, and not both',
            param="all",
        )
    return selection


def _dead_letters(request: HttpRequest) -> DeadLetters:
    return DeadLetters(intake_state(request).queue)
