"""What a request may cost: by its own header X-Max-Cost, and by the daily budget of its API key.

A budget is charged with the expected cost before the job is queued, and with the difference by the worker that runs it.
So at any moment it covers what was spent and what is queued or running, as far as that can be foreseen.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from bitladder.contract import Request
from bitladder.errors import QueueUnreachableError
from bitladder.overview.cost_report import ModelCurves, dominated_tiers, read_curves
from bitladder.queue.calls.upkeep import budget_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.outage import OUTAGE
from bitladder.routing.max_cost import BudgetError

log = structlog.get_logger()
_READ_EVERY_S = 1.0


class Budgets:
    """The budgets of API keys, and the measured paces that expected costs rest on."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.curves: ModelCurves = {}
        self.dominated: dict[str, dict[str, str]] = {}  # by model: tiers, and the higher ones that beat them

    async def run(self) -> None:
        """Read what the workers have measured, once a second, until cancelled."""
        while True:
            if any(tier.price_per_hour for model in self._queue.settings.models.values() for tier in model.tiers):
                with contextlib.suppress(QueueUnreachableError):
                    await self.refresh()
            await asyncio.sleep(_READ_EVERY_S)

    async def refresh(self) -> None:
        """Read what the workers have measured.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        self.curves = await read_curves(self._queue.client, self._queue.settings)
        dominated = dominated_tiers(self._queue.settings, self.curves)
        for model, beaten in dominated.items():
            for tier, higher in beaten.items():
                if self.dominated.get(model, {}).get(tier) is None:
                    log.warning(
                        "tier dominated: a higher one is as fast and as cheap", tier=f"{model}:{tier}", by=higher
                    )
        self.dominated = dominated

    async def charge(self, request: Request) -> BudgetError | None:
        """Charge the request's budget with what it is expected to cost; return why it is not, where that is used up.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        key = self._queue.settings.auth.keys.get(request.payer)
        budget = key.budget_per_day if key else None  # None: taken away meanwhile
        wait_ms, used = await self._queue.run(budget_call(request.payer, request.expected_cost, budget))
        if not wait_ms or budget is None:
            return None
        return BudgetError(
            f"the key {request.payer} has used {float(used):.6g} of its budget of {budget:g} a day "
            f"([auth.keys.{request.payer}].budget_per_day), and this request is expected to cost "
            f"{request.expected_cost:.6g}; the next day begins in {wait_ms / 1000:.0f} s, at midnight UTC",
            retry_after_s=wait_ms / 1000,
        )

    async def give_up(self, request: Request) -> None:
        """Take the charge of a request back that was not queued."""
        try:
            await self._queue.run(budget_call(request.payer, -request.expected_cost, None))
        except QueueUnreachableError as error:
            OUTAGE.warn("a budget is charged for a request that was not queued", error=str(error))
