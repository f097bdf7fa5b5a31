"""The rule of overflow without Redis: runs the very lines that the claim runs (scripts/parts/overflow.lua).

For tests and simulations. It needs `lupa`, which is in the extras calibrate and dev; no server process imports this
module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lupa.lua51 import LuaRuntime  # the version that Redis has

from bitladder.queue.run_script import part
from bitladder.script_constants import lua_constants

# An entry of the claim's plan (bitladder/queue/claim_plan.py): a tier, or one of its lanes.
Entry = Mapping[str, Any]


class _Facts(Protocol):
    """What the rule asks, and what it does: see the head of overflow.lua."""

    now: int  # ms
    share: float  # a head is late when it has waited for more of the time to its deadline

    def depth(self, lists: Sequence[str]) -> int:
        """Return how many jobs wait in lists."""

    def marked_at(self, lane: Entry) -> int | None:
        """Return since when the lane has the mark that it overflows (ms); None: it has none."""

    def mark(self, lane: Entry, overflows: bool) -> None:
        """Set the lane's mark, or clear it."""

    def has_workers(self, tier: Entry) -> bool:
        """Return whether a worker of the tier itself is alive."""

    def head(self, name: str) -> tuple[int, int | None] | None:
        """Return when the first job of a list was enqueued, and its deadline, where it has one (ms)."""

    def drain_rate(self, lane: Entry) -> float | None:
        """Return how many of the lane's jobs end in a second; None: that is not known."""

    def is_idle(self) -> bool:
        """Return whether nothing waits for the worker's own tier."""

    def take(self, lists: Sequence[str], limit: int) -> tuple[int, int, int]:
        """Take up to `limit` jobs; return how many ids left the lists, how many started and how many had expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Allowance:
    """What may escalate from a lane now."""

    jobs: int
    lists: Sequence[str]
    only_late: bool  # only heads that are late, one at a time


class OverflowRule:
    """The functions of overflow.lua, and of fairness.lua those that say whose turn it is."""

    def __init__(self) -> None:
        self._lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
        parts = "\n".join(map(part, ("overflow", "below_floor", "fairness")))
        functions = ("allowance", "take_overflow", "take_below_floor", "lane_order", "looks_down_first")
        table = ", ".join(f"{name} = {name}" for name in functions)
        self._functions: Any = self._lua.execute(f"{lua_constants(parts)}{parts}\nreturn {{{table}}}")

    def allowance(self, tier: Entry, lane: Entry, facts: _Facts) -> _Allowance:
        jobs, lists, only_late, _ = self._functions.allowance(self._table(tier), self._table(lane), self._facts(facts))
        return _Allowance(jobs=jobs, lists=list(lists.values()), only_late=only_late)

    def take(self, tier: Entry, room: int, facts: _Facts) -> int:
        """Take up to `room` jobs of a lower tier; return the room that is left."""
        return int(self._functions.take_overflow(self._table(tier), room, self._facts(facts)))

    def bind(self, tiers: Sequence[Entry], facts: _Facts) -> Callable[[int, int], int]:
        """Return `take` over the same tiers (by index) and facts, for many calls: nothing is copied for each."""
        tables, asked = [self._table(tier) for tier in tiers], self._facts(facts)

        def take(index: int, room: int) -> int:
            asked["now"] = facts.now
            return int(self._functions.take_overflow(tables[index], room, asked))

        return take

    def lane_order(self, jobs: int) -> tuple[tuple[int, ...], int]:
        """Return the order of lanes (0: urgent) after so many jobs of a cycle, and for how many more it holds."""
        order, run = self._functions.lane_order(jobs)
        return tuple(place - 1 for place in order.values()), int(run)

    def looks_down_first(self, claims: int) -> bool:
        """Return whether this claim of a tier looks at the lower ones first."""
        return bool(self._functions.looks_down_first(claims))

    def take_below_floor(self, lists: Sequence[Entry], room: int, facts: _Facts) -> int:
        """Take up to `room` jobs whose clients consent, from lists {name, tiers}; return the room that is left."""
        return int(self._functions.take_below_floor(self._table(lists), room, self._facts(facts)))

    def _table(self, entry: Entry | Sequence[Entry]) -> Any:  # noqa: ANN401  (a table of Lua)
        return self._lua.table_from(entry, recursive=True)

    def _facts(self, facts: _Facts) -> Any:  # noqa: ANN401
        return self._lua.table_from(
            {
                "now": facts.now,
                "share": facts.share,
                "depth": lambda lists: facts.depth(list(lists.values())),
                "marked_at": facts.marked_at,
                "mark": facts.mark,
                "has_workers": facts.has_workers,
                "head": facts.head,
                "drain_rate": facts.drain_rate,
                "is_idle": facts.is_idle,
                "take": lambda lists, limit: facts.take(list(lists.values()), limit),
            }
        )
