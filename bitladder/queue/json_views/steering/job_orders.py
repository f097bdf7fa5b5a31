"""Cancel, purge and move many jobs: counted first, in bounded bundles, noted when they begin and when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitladder.contract import State
from bitladder.errors import QueueUnreachableError
from bitladder.ids import readable
from bitladder.queue.calls import read_word
from bitladder.queue.calls.end import stop_call
from bitladder.queue.calls.steering import Note, OrderRefusedError, move_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.kinds import Count, TierName
from bitladder.queue.json_views.steering.audit_log import noted
from bitladder.queue.json_views.steering.chosen_jobs import Chosen, JobsOrder, choose
from bitladder.queue.json_views.steering.moving import queue_above
from bitladder.queue.pauses import known_tier, only_model
from bitladder.queue.sending.exchange import call_each, exchange
from bitladder.queue.server.protocol import unreachable

# Jobs per round trip, each a script call of its own; or of one call, where it moves them.
_BUNDLE = 100
_MAX_EXAMPLES = 10

Reached = Annotated[dict[str, Count], Meta(description="How many jobs came to what: cancelled, requested, moved, …")]


class MoveOrder(JobsOrder, frozen=True, kw_only=True):
    """Which waiting jobs, and the tier they go to."""

    to: TierName


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """What an order came to, or would."""

    dry_run: bool
    count: Annotated[int, Meta(ge=0, description="Jobs that it is about.")]
    has_more: Annotated[bool, Meta(description="More match than one order is carried out on: repeat it.")]
    by_queue: Annotated[dict[str, Count], Meta(description="How many of them are in each queue.")]
    examples: Annotated[list[str], Meta(description="Ids of the first of them, the latest first.")]
    confirm: Annotated[str, Meta(description="Of a dry run: send it with the order.")]
    results: Reached


Step = Callable[[Sequence[FoundJob]], Awaitable[list[str]]]


async def cancel(queue: JobQueue, order: JobsOrder, operator: str) -> Ordered:
    """Cancel jobs that wait or run: those that wait end at once, workers abort the others."""
    chosen = await choose(queue, "cancel", order, (State.QUEUED, State.RUNNING))
    return await _carry_out(queue, "cancel", order, operator, chosen, partial(_cancel, queue, False))


async def purge(queue: JobQueue, order: JobsOrder, operator: str) -> Ordered:
    """Cancel jobs that wait; one that runs by then goes on."""
    chosen = await choose(queue, "purge", order, (State.QUEUED,))
    return await _carry_out(queue, "purge", order, operator, chosen, partial(_cancel, queue, True))


async def move(queue: JobQueue, order: MoveOrder, operator: str) -> Ordered:
    """Move waiting jobs up to a higher tier; those that may not be served there stay.

    Raises:
        OrderRefusedError: the tier has no live worker that claims.

    """
    model = only_model(queue.settings, order.filter.model)
    target = known_tier(queue.settings, model, order.to)
    depths = await queue.depths(model)
    if not depths.serving[target]:
        raise OrderRefusedError(
            f"{model} {target} has no live worker that claims: jobs moved there would wait", param="to"
        )
    order = msgspec.structs.replace(order, filter=msgspec.structs.replace(order.filter, model=model), all=False)
    chosen = await choose(queue, f"move to {target}", order, (State.QUEUED,))
    waiting = Counter({there.queue: there.depth for there in depths.queues})
    return await _carry_out(queue, "move", order, operator, chosen, partial(_move, queue, model, target, waiting))


async def _cancel(queue: JobQueue, only_waiting: bool, jobs: Sequence[FoundJob]) -> list[str]:
    call = partial(stop_call, queue.settings, queue.signer, only_waiting=only_waiting)
    answers = await call_each(partial(exchange, queue.client.connection_pool), [call(job.job_id) for job in jobs])
    if lost := next((answer for answer in answers if isinstance(answer, Exception)), None):
        raise unreachable("Redis did not carry all of it out", lost)
    return [read_word(answer) for answer in answers]


async def _move(queue: JobQueue, model: str, target: str, waiting: Counter[str], jobs: Sequence[FoundJob]) -> list[str]:
    """Move a bundle, the oldest first: they are to be first there. Waiting: how many do in each queue by now."""
    ladder, max_depth = queue.settings.model(model).ladder, queue.settings.queue.max_depth
    moves, stay = list[tuple[str, str, str]](), list[str]()
    for job in jobs:
        goal = queue_above(job.queue, target, ladder)
        if goal is None:
            stay.append("not allowed there")
        elif waiting[goal] >= max_depth:  # it would refuse new requests
            stay.append("no room there")
        else:
            waiting[goal] += 1
            moves.append((job.job_id, str(job.queue), goal))
    return stay + (list(map(read_word, await queue.run(move_call(moves)))) if moves else [])


async def _carry_out(
    queue: JobQueue, word: str, order: JobsOrder, operator: str, chosen: Chosen, step: Step
) -> Ordered:
    results: Counter[str] = Counter()
    if not order.dry_run:
        entry = Note(operator=operator, what=word, on=_shown(order), reason=order.reason)
        async with noted(queue, entry, results):
            try:
                async for words in _steps(chosen.jobs, step):
                    results.update(words)
            except QueueUnreachableError as error:
                raise _interrupted(word, results, len(chosen.jobs), error) from error
    return Ordered(
        dry_run=order.dry_run,
        count=len(chosen.jobs),
        has_more=chosen.has_more,
        by_queue=dict(Counter(str(job.queue) for job in chosen.jobs)),
        examples=[readable(job.job_id) for job in chosen.jobs[:_MAX_EXAMPLES]],
        confirm=chosen.confirm if order.dry_run else "",
        results=dict(results),
    )


async def _steps(jobs: Sequence[FoundJob], step: Step) -> AsyncIterator[list[str]]:
    """Go through the jobs, the oldest first."""
    oldest_first = jobs[::-1]
    for start in range(0, len(oldest_first), _BUNDLE):
        yield await step(oldest_first[start : start + _BUNDLE])


def _interrupted(word: str, results: Counter[str], count: int, error: QueueUnreachableError) -> QueueUnreachableError:
    done = ", ".join(f"{number} {result}" for result, number in results.items()) or "none"
    return QueueUnreachableError(f"{word} stopped before its end, of {count} jobs {done}; it may be repeated: {error}")


def _shown(order: JobsOrder) -> str:
    """Return what an order is about, as the audit log keeps it."""
    shown: dict[str, Any] = {"filter": order.filter}
    if isinstance(order, MoveOrder):
        shown["to"] = order.to
    if order.ids is not None:
        shown["ids"] = order.ids[:_MAX_EXAMPLES]
    return msgspec.json.encode(shown).decode()
