"""A model's queues by the scripts that serve: submit.lua, claim.lua, finish.lua and expire.lua.

Whatever those do is done here: deadlines, ceilings and sets of tiers, tenants' turns, limits of queues, consent below
the floor, and the mark of the expected wait. Simple requests are served by claim_rule.py, faster and with the same end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import Any

import msgspec

from bitladder.contract import Claimed, Outcome, Request, State, Submission
from bitladder.queue.calls.claim import claim_call
from bitladder.queue.calls.end import Finished, finish_call
from bitladder.queue.calls.submit import submit_call
from bitladder.queue.claim_plan import ClaimPlan, claim_plan, without_overflow
from bitladder.queue.signing import Signer
from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName, list_of
from bitladder.script_constants import JOBS_PER_TURN
from bitladder.settings.sections import Settings
from calibration.simulation.claim_rule import LANES, wakes_of
from calibration.simulation.scripted.key_budgets import KeyBudgets
from calibration.simulation.scripted.script_runner import ScriptRunner
from calibration.simulation.simulated_work import Work, Worker

# The virtual clock begins at a midnight, so that days are those of the trace.
EPOCH_MS = 1_764_460_800_000
_FOREVER_MS = "9e15"
_BYTES = 2**40
# Nothing is kept of what has ended.
_KEEP = "0 0 0 0 0 86400000"
_SMOOTHED_OVER = 8  # as in workers/pump.py
_KEEP_AT = {"claim": 5, "finish": 2}  # the place of that argument


class ScriptedQueue:
    """The queues of one model."""

    def __init__(
        self, settings: Settings, model: str, workers: Sequence[int], work: Work, queues: Sequence[tuple[str, str]]
    ) -> None:
        """`queues`: of each job its queue, and its tenant."""
        self._settings, self._model, self._work, self._queues = settings, model, work, queues
        ladder = settings.models[model].ladder
        self._runner = ScriptRunner(("submit", "claim", "finish", "expire", "budget", "spend"))
        self._budgets = KeyBudgets(settings, model, self._runner, work, EPOCH_MS)
        for tier, count in zip(ladder, workers, strict=True):
            for number in range(count):
                self._runner.call("ZADD", f"bl:live:{model}:{tier}", _FOREVER_MS, f"{tier}-{number}")
        self.depths = [[0] * len(LANES) for _ in ladder]
        self._waiting, lowest = [0] * len(ladder), _reaches(queues, ladder)
        # By rank: the floors that it may serve.
        self._floors = [[floor for floor, first in enumerate(lowest) if rank >= first] for rank in range(len(ladder))]
        self._used = {name for queue in set(queues) for name in (queue[0], _in_batch(*queue)[0])}
        self._wakes = wakes_of(settings, model)
        self._submits: dict[tuple[str, ...], Any] = {}
        self._claims: dict[tuple[int, bool], Any] = {}
        self._finishes: dict[int, Any] = {}
        self._service_ms: dict[int, int] = {}
        self._overflow_cost = (0, 0.0)  # hour, and what overflow has cost in it
        self.expired: list[int] = []

    def add(self, job: int, now_s: float) -> bool:
        """Submit a job; return whether it was accepted."""
        if sum(self._waiting) >= self._settings.queue.max_total:
            return False
        if self._budgets.refuses(job, self._queues[job][1], now_s):
            return False
        answer = self._submit(job, now_s, *self._queues[job])
        if answer == "crowded":  # what its tenant has above its share of the lane goes to the batch lane
            self._work.lane[job] = LANES.index(Lane.BATCH)
            answer = self._submit(job, now_s, *_in_batch(*self._queues[job]))
        if answer != "accepted":
            self._budgets.give_up(job, now_s)
            return False
        self._count(job, 1)
        return True

    def _submit(self, job: int, now_s: float, *queue: str) -> str:
        template = self._submits.get(queue)
        if template is None:
            template = self._submits[queue] = self._runner.template(self._submit_call(*queue))
        return str(self._runner.lua.submit(template, str(job), _ms(now_s), self._longest_ms(job)))

    def _longest_ms(self, job: int) -> int:
        deadline_s = self._work.deadline_s[job] if self._work.deadline_s else 0
        return max(1, int(deadline_s * 1000)) if deadline_s else self._settings.queue.max_wait_s * 1000

    def wakes_others(self, job: int) -> bool:
        rank, lane = self._work.rank[job], self._work.lane[job]
        return self.depths[rank][lane] > self._wakes[rank][lane]

    def finds(self, rank: int) -> bool:
        """Return whether a worker of this rank would find anything to decide."""
        return any(map(self._waiting.__getitem__, self._floors[rank]))  # without a generator: several times as fast

    @property
    def is_empty(self) -> bool:
        return not any(self._waiting)

    def claim(self, worker: Worker, free: int, now_s: float) -> list[int]:
        """Return the jobs that a worker starts now; those whose deadline had passed are in `expired`."""
        is_limited = not self._may_overflow(now_s)
        template = self._claims.get((worker.number, is_limited))
        if template is None:
            template = self._claims[worker.number, is_limited] = self._claim_template(worker, is_limited=is_limited)
        service_ms = self._service_ms.get(worker.number, 0)
        started, expired = self._runner.lua.claim(template, free, _ms(now_s), service_ms)
        self.expired += map(int, expired.split())
        jobs = [int(job) for job in started.split()]
        for job in (*jobs, *self.expired):
            self._count(job, -1)
        return jobs

    def expire(self, job: int, now_s: float) -> None:
        """End a job that waits: its deadline has passed."""
        # Milliseconds are cut off: those of now may be one less than its own and its time together.
        now_ms = max(_ms(now_s), _ms(self._work.at_s[job]) + self._longest_ms(job))
        if self._runner.lua.expire(str(job), now_ms, _KEEP):
            self._count(job, -1)
            self.expired.append(job)

    def end(self, worker: Worker, job: int, now_s: float, *, is_served: bool) -> None:
        """Note that a job has left its worker: it was served, or its deadline has passed."""
        template = self._finishes.get(worker.number)
        if template is None:
            template = self._finishes[worker.number] = self._finish_template(worker)
        self._runner.lua.finish(template, str(job), _ms(now_s), "finished" if is_served else "expired")
        took_ms, before_ms = int((now_s - self._work.begun_s[job]) * 1000), self._service_ms.get(worker.number, 0)
        smoothed_ms = before_ms + (took_ms - before_ms) // _SMOOTHED_OVER
        self._service_ms[worker.number] = smoothed_ms if before_ms else took_ms
        self._budgets.end(worker, job, now_s, is_served=is_served)
        if worker.rank > self._work.rank[job]:
            self._add_overflow_cost(worker, job, now_s)

    def jobs_before(self, job: int) -> int | None:
        """Return how many jobs a new one of its tenant waits for; None where nobody shares its lane.

        As an intake counts it before it refuses a tenant (dispatcher/admission/second_look.py).
        """
        queue, tenant = self._queues[job]
        call, waits_in = self._runner.call, list_of(queue, tenant)
        length = int(call("LLEN", f"rq:queue:{waits_in}"))
        waiting = max(0, length - int(call("HGET", f"bl:counts:{waits_in}", "gone") or 0))
        named, default = call("ZCARD", f"bl:shares:{queue}"), call("EXISTS", f"rq:queue:{queue}")
        others = int(named) + int(default) - (1 if length else 0)
        return waiting * (others + 1) + others * JOBS_PER_TURN if others > 0 else None

    def _count(self, job: int, change: int) -> None:
        rank = self._work.rank[job]
        self._waiting[rank] += change
        self.depths[rank][self._work.lane[job]] += change

    def _may_overflow(self, now_s: float) -> bool:
        limit, (hour, cost) = self._settings.models[self._model].max_overflow_cost_per_hour, self._overflow_cost
        return limit is None or hour != int(now_s // 3600) or cost < limit

    def _add_overflow_cost(self, worker: Worker, job: int, now_s: float) -> None:
        (hour, cost), now_hour = self._overflow_cost, int(now_s // 3600)
        price = self._settings.models[self._model].tiers[worker.rank].price_per_hour
        spent = self._work.share_s[job] * price / 3600
        self._overflow_cost = (now_hour, spent + (cost if hour == now_hour else 0.0))

    def _submit_call(self, queue: str, tenant: str) -> Any:  # noqa: ANN401
        settings, keys = self._settings, self._settings.auth.keys.values()
        quotas = [key.max_queued for key in keys if key.tenant == tenant and key.max_queued]
        weights = [key.weight for key in keys if key.tenant == tenant]
        job = Submission(
            job_id="",
            model=self._model,
            queue=queue,
            request=Request(body=msgspec.Raw(b"{}"), tenant=tenant or DEFAULT_TENANT),
            weight=max(weights, default=1),
        )
        counted = "" if tenant in ("", DEFAULT_TENANT) else tenant
        quota = max(quotas, default=settings.queue.max_per_tenant) if counted else 0
        call = submit_call(settings, Signer(()), (queue, counted, quota), [job])
        return msgspec.structs.replace(call, args=[*call.args[:4], 0, *call.args[5:]])

    def _claim_template(self, worker: Worker, *, is_limited: bool) -> Any:  # noqa: ANN401
        tier = self._settings.models[self._model].ladder[worker.rank]
        plan = without_unused(claim_plan(self._settings, self._model, tier), self._used)
        plan = without_overflow(plan) if is_limited else plan
        self._runner.know(plan.plan)
        self._runner.know(plan.scheme)
        call = claim_call(self._settings, f"worker-{worker.number}", self._model, tier, plan, (1, _BYTES, 0))
        return self._runner.template(_keeping_nothing(call))

    def _finish_template(self, worker: Worker) -> Any:  # noqa: ANN401
        job = Claimed(
            job_id="",
            queue="",
            data=b"",
            attempt=1,
            fence=0,
            enqueued_ms=0,
            deadline_ms=0,
            claimed_ms=0,
            crash_count=0,
            mac=b"",
        )
        outcome = Finished(job=job, outcome=Outcome(state=State.FINISHED, status=200))
        call = finish_call(self._settings, Signer(()), f"worker-{worker.number}", [outcome])
        return self._runner.template(_keeping_nothing(call))


def without_unused(plan: ClaimPlan, used: Set[str]) -> ClaimPlan:
    """Return a plan without the lists for ceilings that no request has: each costs a claim a look."""
    tree = json.loads(plan.plan)
    for lane in (*tree["own"], *(lane for lower in tree["below"] for lane in lower["lanes"])):
        for key in lane.keys() & {"lists", "all", "escalatable"}:
            lane[key] = [name for place, name in enumerate(lane[key]) if not place or name in used]
    return plan._replace(plan=json.dumps(tree))


def _keeping_nothing(call: Any) -> Any:  # noqa: ANN401
    place = _KEEP_AT[call.script] - 1
    return msgspec.structs.replace(call, args=[*call.args[:place], _KEEP, *call.args[place + 1 :]])


def _in_batch(queue: str, tenant: str) -> tuple[str, str]:
    return str(msgspec.structs.replace(QueueName.parse(queue), lane=Lane.BATCH)), tenant


def _reaches(queues: Sequence[tuple[str, str]], ladder: Sequence[str]) -> list[int]:
    """Return by floor the lowest rank that may serve a job: below it where clients consent."""
    lowest = list(range(len(ladder)))
    for name in {queue for queue, _ in queues}:
        queue = QueueName.parse(name)
        floor, serving = ladder.index(queue.tier), queue.serving(ladder)
        lowest[floor] = min(lowest[floor], ladder.index(serving[0]))
    return lowest


def _ms(now_s: float) -> int:
    return EPOCH_MS + int(now_s * 1000)
