"""Every order by its name: what it is read as, and what carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from bitladder.errors import RequestError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.steering.chosen_jobs import JobsOrder
from bitladder.queue.json_views.steering.draining import WorkerOrder, drain
from bitladder.queue.json_views.steering.job_orders import MoveOrder, cancel, move, purge
from bitladder.queue.json_views.steering.pausing import PauseOrder, ResumeOrder, pause, resume


class Order(NamedTuple):
    """One kind of order."""

    kind: type  # of its body
    carry_out: Callable[[JobQueue, Any, str], Awaitable[object]]


ORDERS: Mapping[str, Order] = MappingProxyType(
    {
        "pause": Order(PauseOrder, pause),
        "resume": Order(ResumeOrder, resume),
        "drain": Order(WorkerOrder, drain),
        "cancel": Order(JobsOrder, cancel),
        "purge": Order(JobsOrder, purge),
        "move": Order(MoveOrder, move),
    }
)


async def carry_out(queue: JobQueue, word: str, body: bytes, operator: str) -> object:
    """Carry out an order; `operator`: who gives it.

    Raises:
        RequestError: its body cannot be read.

    """
    order = ORDERS[word]
    try:
        request: Any = msgspec.json.decode(body, type=order.kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(order.kind))
        raise RequestError(f"the body must be a JSON object with {fields}: {error}") from error
    return await order.carry_out(queue, request, operator)
