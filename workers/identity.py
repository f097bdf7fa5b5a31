"""Which worker this is: its model, its tier, and its name in Redis."""

from __future__ import annotations

import secrets

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """One start of one worker."""

    model: str
    tier: str
    name: str

    @classmethod
    def new(cls, model: str, tier: str) -> Identity:
        """Return an identity with a new name: what an earlier start of the worker did cannot pass for this one's."""
        return cls(model, tier, f"{model}.{tier}.{secrets.token_hex(6)}")

    def log_fields(self) -> dict[str, str]:
        """Return the fields that every line of this worker's log has."""
        return {"model": self.model, "tier": self.tier, "worker": self.name}
