"""Routes by which operators steer: pause, resume, drain, and the log of what was ordered."""

from __future__ import annotations

from collections.abc import Mapping

from bitladder.queue.json_views.steering.audit_log import AuditLog
from bitladder.queue.json_views.steering.draining import Drained
from bitladder.queue.json_views.steering.job_orders import Ordered
from bitladder.queue.json_views.steering.orders import ORDERS
from bitladder.queue.json_views.steering.pausing import Paused, PauseList, Resumed
from dispatcher.auth import Requirement
from dispatcher.ops.steering_handlers import get_audit, get_pauses, ordering
from dispatcher.routes.operation import Content, Operation, answer

_FIRST = "First with `dry_run`, which counts, and then with `dry_run: false` and the `confirm` that it answered."


def _order(
    word: str, kind: type, summary: str, description: str, examples: Mapping[str, Mapping[str, object]]
) -> Operation:
    return Operation(
        method="POST",
        path=f"/v1/ops/{word}",
        requires=Requirement.OPS_WRITE,
        handler=ordering(word),
        name=f"order{word.capitalize()}",
        tag="operating",
        summary=summary,
        description=description,
        body=Content(kinds=(ORDERS[word].kind,), examples=examples),
        answers={200: answer(kind, "What was done.")},
        errors=("NotFound", "OrderRefused", "TooLarge", "ContentCoding"),
    )


OPERATIONS = (
    _order(
        "pause",
        Paused,
        "Pause a tier, a lane, a tenant, a model, or everything.",
        "Claims see it at once. What runs goes on; jobs are accepted, and expire, as usual.",
        {"tier": {"tier": "int4", "reason": "odd answers", "for_s": 600}, "tenant": {"tenant": "acme"}},
    ),
    _order(
        "resume",
        Resumed,
        "Lift a pause.",
        "`everything` lifts what `rq suspend` said as well. Other pauses stay.",
        {"tier": {"tier": "int4"}, "everything": {"everything": True}},
    ),
    _order(
        "drain",
        Drained,
        "Have a worker, or all workers of a tier, end what they have and claim nothing more.",
        "Then they end, with status 0, or stay idle (`keep`).",
        {"tier": {"tier": "int4", "dry_run": True}},
    ),
    _order(
        "cancel",
        Ordered,
        "Cancel jobs that wait or run, by a filter or by their ids.",
        f"{_FIRST} Those that wait end at once, and whoever awaits them is told; workers abort the others.",
        {"tenant": {"filter": {"tenant": "acme", "older_than": 600}, "reason": "a loop at acme"}},
    ),
    _order(
        "purge",
        Ordered,
        "Cancel jobs that wait, and none that runs.",
        _FIRST,
        {"lane": {"filter": {"tier": "int4", "lane": "batch"}}},
    ),
    _order(
        "move",
        Ordered,
        "Move waiting jobs up to a higher tier, behind those that wait there.",
        f"{_FIRST} Jobs whose ceiling is below stay.",
        {"up": {"filter": {"tier": "int4"}, "to": "int8"}},
    ),
    Operation(
        method="GET",
        path="/v1/ops/pauses",
        requires=Requirement.OPS_READ,
        handler=get_pauses,
        name="listPauses",
        tag="operating",
        summary="List what is paused: by whom, since when, until when and why.",
        answers={200: answer(PauseList, "The pauses that are in force.")},
    ),
    Operation(
        method="GET",
        path="/v1/ops/audit",
        requires=Requirement.OPS_READ,
        handler=get_audit,
        name="listOrders",
        tag="operating",
        summary="List what operators ordered, the latest first.",
        description="The last 10,000 orders, by HTTP or by the command line.",
        parameters=("AfterQuery", "AuditQuery"),
        answers={200: answer(AuditLog, "Orders, and whether there are more.")},
    ),
)
