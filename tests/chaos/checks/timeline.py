"""When what was broken and for how long, so that what happened to a job can be held against a cause."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

# Instead of a service's name: nobody reached Valkey, or not as usual.
EVERYBODY = "everybody"


@dataclass(slots=True, kw_only=True)
class Trouble:
    """One service, or everybody, was kept from Valkey."""

    fault: str
    target: str
    begin_s: float  # wall clock, as all times here
    end_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Valkey ended, and what it was told from `since_s` on may be forgotten."""

    since_s: float
    at_s: float


class Timeline:
    """Written by whoever breaks things."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.losses: list[Loss] = []

    @contextlib.contextmanager
    def trouble(self, fault: str, target: str) -> Iterator[None]:
        """Note that a fault lasts as long as the block."""
        trouble = Trouble(fault=fault, target=target, begin_s=time.time())
        self.troubles.append(trouble)
        try:
            yield
        finally:
            trouble.end_s = time.time()

    def own(self, target: str, begin_s: float, end_s: float) -> list[Trouble]:
        """Return what kept this service alone from Valkey in this time."""
        return [one for one in self.troubles if one.target == target and one.begin_s < end_s and one.end_s > begin_s]

    def own_s(self, target: str, begin_s: float, end_s: float) -> float:
        """Return for how much of this time the service alone was in trouble, or it as well."""
        return _covered_s(self.own(target, begin_s, end_s), begin_s, end_s)

    def silence_s(self, target: str, begin_s: float, end_s: float) -> float:
        """Return for how much of this time the service may not have reached Valkey, whatever the reason."""
        its = [trouble for trouble in self.troubles if trouble.target in (target, EVERYBODY)]
        return _covered_s(its, begin_s, end_s)

    def calm_since_s(self, target: str, end_s: float) -> float:
        """Return since when, at this time, the service was free of trouble; `end_s` where it is in some."""
        its = [
            trouble for trouble in self.troubles if trouble.target in (target, EVERYBODY) and trouble.begin_s < end_s
        ]
        return max((min(trouble.end_s, end_s) for trouble in its), default=0)

    def age_s(self, begin_s: float, end_s: float) -> float:
        """Return how long before the server's end that was which it may have lost; 0 where it was written later."""
        losses = [loss for loss in self.losses if loss.since_s <= end_s and begin_s <= loss.at_s]
        return min((max(0.0, loss.at_s - end_s) for loss in losses), default=math.inf)

    def write(self, path: Path) -> None:
        """Write down what was broken, to be read beside the logs of the processes."""
        lines = [msgspec.json.encode(one) for one in (*self.troubles, *self.losses)]
        path.write_bytes(b"\n".join(lines))

    def longest_s(self) -> float:
        """Return the length of the longest trouble of everybody."""
        return max((one.end_s - one.begin_s for one in self.troubles if one.target == EVERYBODY), default=0)

    def is_forgotten(self, begin_s: float, end_s: float) -> bool:
        """Return whether what was written at some moment of this time may have been lost with the server."""
        return any(loss.since_s <= end_s and begin_s <= loss.at_s for loss in self.losses)


def _covered_s(troubles: list[Trouble], begin_s: float, end_s: float) -> float:
    covered_s, at_s = 0.0, begin_s
    for trouble in sorted(troubles, key=lambda trouble: trouble.begin_s):
        from_s, to_s = max(at_s, trouble.begin_s), min(end_s, trouble.end_s)
        if to_s > from_s:
            covered_s, at_s = covered_s + to_s - from_s, to_s
    return covered_s
