"""When a job would be answered if it were admitted now: the pure half of admission (docs/decisions/0008)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bitladder.queue_name import Lane
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.rates import Load
from bitladder.script_constants import JOBS_PER_CYCLE

# Place of a lane in every list by lanes.
RANK = {lane.value: rank for rank, lane in enumerate(Lane)}
# Of so many turns of a claim, one belongs to each less urgent lane that waits. So this is what a lane gets whatever
# comes before it, and what it leaves to each lane behind it.
_TURN = 1 / JOBS_PER_CYCLE
# The share of a latency budget that a forecast may fill. The rest is a reserve for what the rate of the last seconds
# does not show: jobs that are longer than the average, a worker that has just left.
_PLANNED = 0.8
# Clients that were refused at the same moment are told to come back at different ones: up to this share later.
_JITTER = 0.5
_MIN_RETRY_S = 1.0


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The expected wait and answer of one job."""

    ahead: int  # waiting jobs that would be served first
    rate: float  # jobs a second at which those are served
    wait_s: float  # until a worker claims the job
    answer_s: float  # until it is answered: the wait, and the average time in the engine


def forecast(load: Load, rank: int, admitted: Sequence[int], elapsed_s: float) -> Forecast | None:
    """Return when a job of the lane `rank` would be answered; None while the tier's rate is not known.

    `admitted`: jobs that this process has admitted since the reading, by lane; `elapsed_s`: the reading's age.
    """
    if load.rate is None:
        return None
    waiting = [
        depth + newly_admitted + others_per_s * elapsed_s
        for depth, newly_admitted, others_per_s in zip(load.depth, admitted, load.other_intakes, strict=True)
    ]
    ahead, rate, wait_s = _wait(load, rank, _beyond(waiting, load.free), load.rate)
    wait_s = max(0.0, wait_s - elapsed_s)
    return Forecast(ahead=int(ahead), rate=rate, wait_s=wait_s, answer_s=wait_s + load.residence_s)


def wait_at(load: Load, rank: int, before: int) -> float | None:
    """Return in how many seconds a waiting job is claimed; `before`: jobs of its lane that are served before it.

    None while the tier's rate is not known. A slot must become free for the job itself as well.
    """
    if load.rate is None:
        return None
    return _wait(load, rank, [*load.depth[:rank], before + 1], load.rate)[2]


def _wait(load: Load, rank: int, waiting: Sequence[float], all_lanes: float) -> tuple[float, float, float]:
    """Return how many jobs are served before one of the lane `rank`, at which rate, and for how long it waits."""
    behind = sum(1 for depth in load.depth[rank + 1 :] if depth)
    own_share = 1 - _TURN * behind if rank == 0 else _TURN
    ahead = sum(waiting[: rank + 1])
    # More urgent lanes go on filling. However much they take, the lane keeps its own turns.
    in_order = all_lanes * (1 - _TURN * behind) - sum(load.arrivals[:rank])
    by_turns = all_lanes * own_share
    wait_s, rate = waiting[rank] / by_turns, by_turns
    if in_order > 0 and ahead / in_order < wait_s:
        wait_s, rate = ahead / in_order, in_order
    return ahead, rate, wait_s


def _beyond(waiting: list[float], free: int) -> list[float]:
    """Return the jobs of each lane that find no free slot; the most urgent lanes take the slots first."""
    slots = float(free)
    beyond = []
    for count in waiting:
        beyond.append(max(0.0, count - slots))
        slots = max(0.0, slots - count)
    return beyond


def excess_s(expected: Forecast, latency_budget: LatencyBudget) -> float:
    """Return by how many seconds the job would exceed its latency budget, less the reserve; 0 or less: it would not."""
    pairs = ((expected.answer_s, latency_budget.whole_s), (expected.wait_s, latency_budget.first_s))
    return max((at_s - _PLANNED * budget_s for at_s, budget_s in pairs if budget_s is not None), default=0.0)


def retry_after_s(wait_s: float, chance: float) -> float:
    """Return when a refused client should come back; `chance` is a random number from 0 to 1."""
    return max(_MIN_RETRY_S, wait_s) * (1 + _JITTER * chance)
