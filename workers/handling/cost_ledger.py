"""What one worker spends: attributed to the jobs that its engine ran, and as rent. Sent to Redis once a second.

What has not been sent is in this process alone: a worker that is killed loses the sums of its last second, and none of
the costs in outcomes. A call that may have arrived is repeated with its number, and counts once.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from bitladder.contract import Claimed, Outcome, Request, State
from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.spending import Spent, spend_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.job_record import inflate
from bitladder.queue.server.outage import OUTAGE
from bitladder.queue.untrusted import read_amount
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.routing.cost import concurrency_of, price_of
from bitladder.rq_call import decode_call
from bitladder.settings.models_section import ModelSettings
from workers.execute import Executed, Verdict
from workers.handling.engine_share import EngineTime, Execution
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics

log = structlog.get_logger()
_SEND_EVERY_S = 1.0
# Of an outcome's cost.
_DIGITS = 9


class CostLedger:
    """Adds up what a worker spends. Where no tier of its model has a price, it sends nothing."""

    def __init__(self, queue: JobQueue, worker: Identity, metrics: WorkerMetrics) -> None:
        model = queue.settings.model(worker.model)
        self.engine, self._ladder = EngineTime(), model.ladder
        self._queue, self._worker, self._metrics = queue, worker, metrics
        self._overflow = 0.0  # what it has cost all workers of the model in this hour, as they had sent it a second ago
        self._spent = Spent(number=1)
        self._sending: Spent | None = None
        self._counted_s = time.monotonic()  # until when the rent is in the sums

    @property
    def _model(self) -> ModelSettings:  # with its prices as they are now
        return self._queue.settings.model(self._worker.model)

    @property
    def _price_per_hour(self) -> float:
        return self._model.tier(self._worker.tier).price_per_hour

    @property
    def _is_priced(self) -> bool:
        return any(tier.price_per_hour for tier in self._model.tiers)

    def may_overflow(self) -> bool:
        """Return whether overflow has cost less than it may in this hour."""
        max_overflow = self._model.max_overflow_cost_per_hour
        if max_overflow is None:
            return True
        unsent = self._spent.overflow + (self._sending.overflow if self._sending else 0.0)
        return self._overflow + unsent < max_overflow

    def charge(self, job: Claimed, execution: Execution | None, done: Executed | None) -> float | None:
        """Add an execution to the sums; return what its job has cost with those before, None where none has begun."""
        if execution is None:
            return job.spent
        execution.end()
        cost = price_of(execution.share_s, self._price_per_hour)
        if self._is_priced:
            request = done.request if done else _request(job)
            self._add(job, execution, cost, request, _finished(done))
        return round((job.spent or 0.0) + cost, _DIGITS)

    def _add(
        self, job: Claimed, execution: Execution, cost: float, request: Request | None, finished: Outcome | None
    ) -> None:
        spent, tenant = self._spent, request.tenant if request else DEFAULT_TENANT
        tokens = finished.usage.completion_tokens if finished else 0
        spent.add_tenant(tenant, cost, int(finished is not None), tokens)
        if self._ladder.index(job.tier) < self._ladder.index(self._worker.tier):
            spent.overflow += cost
        if request and request.payer:
            charged = request.expected_cost if job.spent is None else 0.0  # by its first execution the estimate is paid
            spent.add_payer(request.payer, job.enqueued_ms, cost - charged)
        if tokens and execution.share_s > 0:
            concurrency = concurrency_of(execution.run_s, execution.share_s)
            spent.add_pace(concurrency, tokens, execution.share_s, execution.run_s)

    async def run(self) -> None:
        """Send the sums once a second, until cancelled."""
        while True:
            try:
                await self.send()
            except QueueUnreachableError as error:
                OUTAGE.warn("costs wait for Redis", error=str(error))
            await asyncio.sleep(_SEND_EVERY_S)

    async def send(self) -> None:
        """Send what has been added; what an earlier call may not have brought goes first.

        Raises:
            QueueUnreachableError: Redis is unreachable; the sums are kept.

        """
        if not self._is_priced:
            self._counted_s = time.monotonic()  # no rent is due for this time, should a price come
            return
        if self._sending is not None:
            await self._send(self._sending)
        self._count_rent()
        for tenant, (cost, _, _) in self._spent.tenants.items():
            self._metrics.tenants.add_cost(tenant, cost)
        self._sending, self._spent = self._spent, Spent(number=self._spent.number + 1)
        await self._send(self._sending)

    async def _send(self, spent: Spent) -> None:
        worker = self._worker
        answer = await self._queue.run(spend_call(worker.name, worker.model, worker.tier, spent))
        self._overflow = read_amount(answer) or 0.0
        self._sending = None

    def _count_rent(self) -> None:
        now_s = time.monotonic()
        self._spent.seconds += now_s - self._counted_s
        rent = price_of(now_s - self._counted_s, self._price_per_hour)
        self._spent.rent += rent
        self._metrics.rent.inc(rent)
        self._counted_s = now_s


def _finished(done: Executed | None) -> Outcome | None:
    is_finished = done is not None and done.verdict is Verdict.FINISH and done.outcome.state is State.FINISHED
    return done.outcome if done and is_finished else None


def _request(job: Claimed) -> Request | None:
    """Return the request of a job whose execution was interrupted."""
    try:
        return decode_call(inflate(job.data))
    except (ValueError, msgspec.DecodeError):
        return None
