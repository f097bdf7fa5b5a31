"""Which queue each request waits in: its floor by the policy, its lane, and who may serve it, as an intake decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np

from bitladder.decision import Score
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.constraints import Constraints, constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import Policies
from bitladder.routing.policies.interface import Requester
from bitladder.settings.sections import Settings
from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals

# Of one request: its ceiling, the only tiers that may serve it, and whether it may be served below its floor.
_Limits = tuple[str, tuple[str, ...], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How floors come about."""

    settings: Settings
    model: str
    shares: Mapping[str, float]  # of the requests, by floor; empty: the policy decides by their features
    seed: int = 0

    @property
    def ladder(self) -> tuple[str, ...]:
        return self.settings.models[self.model].ladder

    def ranks(self, arrivals: Arrivals) -> list[int]:
        """Return each request's floor: its own, else by shares, else by the policy; moved to where it may be served."""
        ranks = {name: rank for rank, name in enumerate(self.ladder)}
        if unknown := ({*arrivals.floors, *self.shares} - {*self.ladder, ""}):
            raise InputError(f"a floor must be one of {', '.join(self.ladder)}, got {min(unknown)!r}")
        drawn: Iterator[int | None] = iter(self._drawn(ranks, len(arrivals))) if self.shares else repeat(None)
        decide, chosen = self._policy(), []
        columns = zip(arrivals.floors or repeat("", len(arrivals)), drawn, self._constraints(arrivals), strict=False)
        for index, (floor, by_share, constraints) in enumerate(columns):
            if floor or by_share is not None:
                chosen.append(constraints.nearest(ranks[floor] if floor else by_share or 0))
            else:
                chosen.append(ranks[decide(arrivals, index, constraints)])
        return chosen

    def queues(self, arrivals: Arrivals, ranks: Sequence[int], lanes: Sequence[Lane]) -> list[tuple[str, str]]:
        """Return each request's queue, and its tenant."""
        tenants = arrivals.tenants or repeat("", len(arrivals))
        limits = _limits_of(arrivals)
        return [
            _queue(self.model, self.ladder, limit, rank, lane, tenant)
            for limit, rank, lane, tenant in zip(limits, ranks, lanes, tenants, strict=True)
        ]

    def _constraints(self, arrivals: Arrivals) -> Iterator[Constraints]:
        for index, limits in enumerate(_limits_of(arrivals)):
            try:
                yield _constraints(self.ladder, limits)
            except RequestError as error:
                raise InputError(f"request {index + 1}: {error}") from error

    def _drawn(self, ranks: Mapping[str, int], count: int) -> list[int]:
        # Apart from what made the requests: other shares, the same requests.
        random = np.random.default_rng((self.seed, 1))
        total = sum(self.shares.values())
        names, weights = zip(*self.shares.items(), strict=True)
        chosen = random.choice([ranks[name] for name in names], count, p=[weight / total for weight in weights])
        return [int(rank) for rank in chosen]

    def _policy(self) -> Callable[[Arrivals, int, Constraints], str]:
        policies = Policies(self.settings)

        def decide(arrivals: Arrivals, index: int, constraints: Constraints) -> str:
            policy = policies.select(self.model, "", lambda: Requester(key="", request=index.to_bytes(8)))
            score = arrivals.scores[index] if arrivals.scores else None
            try:
                return policy.decide(score or Score(), constraints).floor
            except KeyError as error:  # by name: whatever it reads, and nothing that it would only report
                missing = [name for name in policy.features if score is None or getattr(score, name) is None]
                raise InputError(
                    f"policy {policy.name} reads {', '.join(missing)}, which request {index + 1} lacks: state shares "
                    "by floor, or take a recorded trace with a score in each line"
                ) from error

        return decide


def _limits_of(arrivals: Arrivals) -> Iterator[_Limits]:
    count = len(arrivals)
    columns = (arrivals.ceilings or repeat("", count), arrivals.only or repeat((), count))
    return zip(*columns, arrivals.below_floor or repeat(False, count), strict=True)


@lru_cache(maxsize=4096)
def _constraints(ladder: tuple[str, ...], limits: _Limits) -> Constraints:
    ceiling, only, consents = limits
    envelope = Envelope(max_tier=ceiling or None, quantizations=only or None, below_floor=consents or None)
    return constraints_of(envelope, ladder)


@lru_cache(maxsize=4096)
def _queue(model: str, ladder: tuple[str, ...], limits: _Limits, rank: int, lane: Lane, tenant: str) -> tuple[str, str]:
    return str(_constraints(ladder, limits).queue(model, ladder[rank], lane)), tenant
