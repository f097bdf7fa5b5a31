"""Whether a job can be answered within its client's latency budget: pure. docs/decisions/0008 says why this rule."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bitladder.contract import Lane
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.rates import Load
from bitladder.script_constants import JOBS_PER_CYCLE

# Place of a lane in every list by lanes.
RANK = {lane.value: rank for rank, lane in enumerate(Lane)}
# Of so many turns of a claim, one belongs to each less urgent lane that waits. So this is what a lane gets whatever
# comes before it, and what it leaves to each lane behind it.
TURN = 1 / JOBS_PER_CYCLE
# Of the latency budget: what may be planned. The rest is for what the rate of the last seconds does not know: jobs
# longer than the average, a worker that has just gone.
PLANNED = 0.8
# Clients that were refused together come back over a time half as long again.
JITTER = 0.5
MIN_RETRY_S = 1.0


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When a job would be answered if it came in now."""

    ahead: int  # jobs that wait and would be served first
    rate: float  # jobs a second at which those end
    wait_s: float
    answer_s: float  # wait and the time a job takes in the engine


def forecast(load: Load, rank: int, admitted: Sequence[int], elapsed_s: float) -> Forecast | None:
    """Return when a job of the lane `rank` would be answered; None while the tier's rate is not known.

    `admitted`: what this process let in since the reading, by lane; `elapsed_s`: how long ago that was.
    """
    if load.rate is None:
        return None
    waiting = [
        depth + mine + others * elapsed_s
        for depth, mine, others in zip(load.depth, admitted, load.elsewhere, strict=True)
    ]
    waiting = _beyond(waiting, load.free)
    behind = sum(1 for depth in load.depth[rank + 1 :] if depth)
    own_share = 1 - TURN * behind if rank == 0 else TURN
    ahead = sum(waiting[: rank + 1])
    # The more urgent lanes go on filling; whatever they do, the lane's own turns remain.
    in_order = load.rate * (1 - TURN * behind) - sum(load.arrivals[:rank])
    by_turns = load.rate * own_share
    wait_s, rate = waiting[rank] / by_turns, by_turns
    if in_order > 0 and ahead / in_order < wait_s:
        wait_s, rate = ahead / in_order, in_order
    wait_s = max(0.0, wait_s - elapsed_s)
    return Forecast(ahead=int(ahead), rate=rate, wait_s=wait_s, answer_s=wait_s + load.residence_s)


def _beyond(waiting: list[float], free: int) -> list[float]:
    """Return what waits of jobs that find so many slots free, the most urgent ones first."""
    left = float(free)
    beyond = []
    for count in waiting:
        beyond.append(max(0.0, count - left))
        left = max(0.0, left - count)
    return beyond


def excess_s(found: Forecast, latency_budget: LatencyBudget) -> float:
    """Return by how many seconds the answer would be too late to be planned for; at most 0 where it would not."""
    late = [
        at_s - PLANNED * within_s
        for at_s, within_s in ((found.answer_s, latency_budget.whole_s), (found.wait_s, latency_budget.first_s))
        if within_s is not None
    ]
    return max(late, default=0.0)


def retry_after_s(wait_s: float, chance: float) -> float:
    """Return when a refused client should come back; `chance` is a random number from 0 to 1."""
    return max(MIN_RETRY_S, wait_s) * (1 + JITTER * chance)
