"""GET /v1/costs: what requests have cost, of every tenant to operators, to others of their own."""

from __future__ import annotations

from typing import cast, get_args

from starlette.requests import Request as HttpRequest

from bitladder.errors import RequestError
from bitladder.overview.cost_report import MAX_DAYS, Grouping, report_costs
from bitladder.settings.access import Caller
from dispatcher.http.request_parts import query_count
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state

DEFAULT_BY: Grouping = "tier"
DEFAULT_DAYS = 7


async def get_costs(request: HttpRequest) -> Response:
    """Show the costs of the last ?days=, today included, ?by= tenant, tier, day or model."""
    grouping, days = (
        request.query_params.get("by", DEFAULT_BY),
        query_count(request, "days", minimum=1, maximum=MAX_DAYS),
    )
    if grouping not in get_args(Grouping):
        raise RequestError(f"by must be one of {', '.join(get_args(Grouping))}, got {grouping[:40]!r}", param="by")
    caller: Caller = request.state.caller
    tenant = None if caller.sees_all else caller.tenant
    return json_response(
        await report_costs(intake_state(request).queue, cast("Grouping", grouping), days or DEFAULT_DAYS, tenant)
    )
