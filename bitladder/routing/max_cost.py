"""What a request may cost: the tiers that X-Max-Cost leaves, and the errors where a maximum is reached."""

from __future__ import annotations

from collections.abc import Mapping

from bitladder.errors import RateLimitError, RequestError
from bitladder.routing.body import Body, max_tokens
from bitladder.routing.constraints import Constraints
from bitladder.routing.cost import Curves, affordable, at_least, expected_costs
from bitladder.settings.models_section import ModelSettings


class MaxCostError(RequestError):
    """Every tier that the request allows is expected to cost more than it may."""

    code = "max_cost_exceeded"


class BudgetError(RateLimitError):
    """The budget of the API key is used up for this day."""

    code = "budget_exceeded"


def costs_of(body: Body, model: ModelSettings, curves: Curves) -> Mapping[str, float | None]:
    """Return what a request is expected to cost at each tier of its model; None: nothing has been measured there."""
    return expected_costs({tier.name: tier.price_per_hour for tier in model.tiers}, curves, max_tokens(body))


def within_cost(constraints: Constraints, costs: Mapping[str, float | None]) -> Constraints:
    """Return the constraints without the tiers that are expected to cost more than X-Max-Cost.

    Raises:
        MaxCostError: that would be all of them.

    """
    max_cost = constraints.envelope.max_cost
    if max_cost is None:
        return constraints
    ladder = constraints.ladder
    allowed = sorted(constraints.allowed or range(constraints.lowest, constraints.highest + 1))
    bounds = at_least([costs[tier] for tier in ladder])
    row = affordable([bounds[rank] for rank in allowed], 0, len(allowed) - 1, max_cost)
    within = frozenset(rank for rank, bound in enumerate(bounds) if bound <= max_cost)
    kept = row and constraints.within(allowed[row[0]], allowed[row[1]], within)
    if not kept:
        expected = ", ".join(f"{_words(costs[ladder[rank]])} at {ladder[rank]}" for rank in allowed)
        raise MaxCostError(
            f"X-Max-Cost is {max_cost:g}, but the request is expected to cost {expected}: allow more, or set "
            "max_tokens lower",
            param="X-Max-Cost",
        )
    return kept


def _words(cost: float | None) -> str:
    return "not measured" if cost is None else f"{cost:.9f}"
