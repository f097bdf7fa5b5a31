"""Routes for operators and their tools."""

from __future__ import annotations

from bitladder.overview.cost_report import CostReport
from bitladder.queue.json_views.queue_list import QueueList
from dispatcher.auth import Requirement
from dispatcher.ops.cost_handler import get_costs
from dispatcher.ops.health import Health, Ready, get_health, get_ready
from dispatcher.ops.prometheus import get_metrics
from dispatcher.ops.queue_depths import get_queues
from dispatcher.routes.operation import OPENMETRICS, TEXT, Answer, Content, Operation, answer

_READY = {
    "status": "ready",
    "live_workers": {"smollm2": {"int4": 1}},
    "suspended": False,
    "paused": [],
    "broken_queues": {},
    "refused_change": None,
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/queues",
        requires=Requirement.OPS_READ,
        handler=get_queues,
        name="listQueues",
        tag="operating",
        summary="Show depth, age of the oldest job, jobs in flight and live workers.",
        answers={200: answer(QueueList, "The queues of every model.")},
    ),
    Operation(
        method="GET",
        path="/v1/costs",
        requires=Requirement.READ,
        handler=get_costs,
        name="readCosts",
        tag="operating",
        summary="Show what requests have cost, and what they would have cost at one tier.",
        description="Of every tenant with the scope ops:read, else of the key's own tenant, without rent.",
        parameters=("ByQuery", "DaysQuery"),
        answers={200: answer(CostReport, "A row for each tier, tenant, day or model, and the total.")},
    ),
    Operation(
        method="GET",
        path="/health",
        requires=Requirement.PUBLIC,
        handler=get_health,
        name="getHealth",
        tag="operating",
        summary="Say that the process lives, whatever Redis does.",
        answers={200: answer(Health, "It lives.", examples={"usual": {"status": "ok"}})},
    ),
    Operation(
        method="GET",
        path="/readyz",
        requires=Requirement.PUBLIC,
        handler=get_ready,
        name="getReady",
        tag="operating",
        summary="Say whether requests would be accepted.",
        answers={200: answer(Ready, "Redis answers, and all of this intake runs.", examples={"usual": _READY})},
    ),
    Operation(
        method="GET",
        path="/metrics",
        requires=Requirement.OPS_READ,
        handler=get_metrics,
        name="getMetrics",
        tag="operating",
        summary="Show the metrics in Prometheus' text format.",
        answers={
            200: Answer(
                description="The metrics, as OpenMetrics where Accept names it.",
                content=[Content(kinds=(), media_type=TEXT), Content(kinds=(), media_type=OPENMETRICS)],
            )
        },
    ),
)
