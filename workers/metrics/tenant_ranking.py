"""Which tenants have a label of their own: those that used most lately; all others share one."""

from __future__ import annotations

from collections.abc import Callable

from bitladder.process.metric_table import OTHERS

# Tenants without a label whose use is known: those seen last, as who uses much comes often.
_CANDIDATES = 200
# Who takes a label from another has used twice as much: else two alike would take it from each other without end.
_LEAD = 2
# After so many jobs what was used counts half.
_HALVED_AFTER = 10_000


class TenantRanking:
    """The labels of tenants. `on_loss` is told whose label another has taken: its series end, none goes back."""

    def __init__(self, limit: int, on_loss: Callable[[str], None]) -> None:
        self._limit, self._on_loss = limit, on_loss
        self._named: dict[str, float] = {}  # tenant -> what it used lately
        self._candidates: dict[str, float] = {}
        self._count = 0

    def label(self, tenant: str, used: float) -> str:
        """Return the label under which what a tenant has used is to be counted."""
        self._note(tenant, used)
        return tenant if tenant in self._named else OTHERS

    def _note(self, tenant: str, used: float) -> None:
        self._count += 1
        if self._count % _HALVED_AFTER == 0:
            for uses in (self._named, self._candidates):
                uses.update({name: use / 2 for name, use in uses.items()})
        if tenant in self._named or len(self._named) < self._limit:
            self._named[tenant] = self._named.get(tenant, 0) + used
            return
        use = self._candidates.pop(tenant, 0) + used
        smallest = min(self._named, key=self._named.__getitem__)
        if use > _LEAD * self._named[smallest]:
            self._candidates[smallest] = self._named.pop(smallest)
            self._named[tenant] = use
            self._on_loss(smallest)
        else:
            self._candidates[tenant] = use
        if len(self._candidates) > _CANDIDATES:
            del self._candidates[next(iter(self._candidates))]  # not seen for the longest time
