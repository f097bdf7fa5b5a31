"""Routes that show the whole service at a glance."""

from __future__ import annotations

from bitladder.overview.history_answer import History
from bitladder.overview.shape import Overview
from dispatcher.auth import Requirement
from dispatcher.ops.overview_handlers import get_history, get_overview, stream_overview
from dispatcher.routes.operation import EVENTS, Answer, Content, Operation, answer

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/overview",
        requires=Requirement.OPS_READ,
        handler=get_overview,
        name="readOverview",
        tag="operating",
        summary="Show all tiers, workers, costs and dead letters, and what to look at.",
        answers={200: answer(Overview, "One sample, less than a second old.")},
    ),
    Operation(
        method="GET",
        path="/v1/overview/history",
        requires=Requirement.OPS_READ,
        handler=get_history,
        name="readHistory",
        tag="operating",
        summary="Show what was, as series for charts.",
        description="Up to 1h a point stands for 10 seconds, up to 24h for a minute, up to 30d for 15 minutes.",
        parameters=("RangeQuery",),
        answers={200: answer(History, "A value for each moment; null where none is known.")},
    ),
    Operation(
        method="GET",
        path="/v1/overview/stream",
        requires=Requirement.OPS_READ,
        handler=stream_overview,
        name="streamOverview",
        tag="operating",
        summary="Send such a sample every second.",
        description="`event: sample` has an Overview in `data`, `event: problem` an error: the stream goes on.",
        answers={
            200: Answer(description="Samples, until the client leaves.", content=[Content(kinds=(), media_type=EVENTS)])
        },
    ),
)
