"""What the requests of a day have taken, and whether one more is within the budget. Pure.

A request is noted before it is sent, with the most tokens that it can take and what they are expected to cost, and
corrected by what it took. So what a killed process had sent stays counted, and a budget is never exceeded by a restart.
"""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct):
    """Requests, and what they took."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost)

    def __mul__(self, times: int) -> Usage:
        return Usage(self.requests * times, self.tokens * times, self.cost * times)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a day (UTC) may take; None: any."""

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def used_up(self, used: Usage, more: Usage) -> str:
        """Return which part does not have room for more; '' where all have."""
        for name in ("requests", "tokens", "cost"):
            limit = getattr(self, name)
            if limit is not None and getattr(used + more, name) > limit:
                return f"{name}: {getattr(used, name):,.6g} of {limit:,.6g} used today"
        return ""


class Ledger(msgspec.Struct):
    """The usage of a day and of all days, and what was sent and has not come back."""

    day: str = ""
    today: Usage = msgspec.field(default_factory=Usage)
    total: Usage = msgspec.field(default_factory=Usage)
    open: dict[str, Usage] = {}

    def begin_day(self, day: str) -> None:
        """Begin anew on another day; what is in flight counts on the day when it comes back."""
        if day != self.day:
            self.day, self.today = day, Usage()

    def recover(self) -> None:
        """Count what a process that is gone had sent as what it was noted with: nobody knows better."""
        for request in list(self.open):
            self.settle(request, None)

    def in_doubt(self) -> Usage:
        return sum(self.open.values(), self.today)

    def expect(self, tokens: int) -> Usage:
        """Return what a request is noted with: its tokens cost what those so far did, on average."""
        return Usage(1, tokens, tokens * self.total.cost / self.total.tokens if self.total.tokens else 0.0)

    def reserve(self, request: str, expected: Usage) -> None:
        self.open[request] = expected

    def settle(self, request: str, took: Usage | None) -> None:
        """Count a request that came back; None: it did not, and counts as what it was noted with."""
        noted = self.open.pop(request)
        self.today += took or noted
        self.total += took or noted
